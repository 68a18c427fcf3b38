"""os-resetState: what an administrator says of a server."""

import pytest
import sqlalchemy as sa

from cumulet.nova.tables import servers
from tests.nova.api_cloud import Cloud


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host("h1")
    return cloud


def state(cloud: Cloud, server: str) -> tuple[str, str, str | None]:
    shown = cloud.show("alice", server)
    return shown["status"], shown["OS-EXT-STS:vm_state"], shown["OS-EXT-STS:task_state"]


def test_a_server_is_said_to_be_broken_and_well_again(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.hints.clear()
    cloud.act("admin", server, os_resetState={"state": "error"})
    assert {("nova.servers", server), ("nova.hosts.h1", server)} <= set(cloud.hints)
    assert state(cloud, server) == ("ERROR", "error", None)
    cloud.report(server, "on")
    assert state(cloud, server) == ("ERROR", "error", None), "what its host says does not heal it"
    cloud.act("admin", server, os_resetState={"state": "active"})
    assert state(cloud, server) == ("ACTIVE", "active", None)
    cloud.act("admin", server, os_resetState={"state": "error"})
    cloud.act("alice", server, reboot={"type": "HARD"})
    assert state(cloud, server) == ("HARD_REBOOT", "active", "rebooting_hard")


def test_a_fault_is_forgotten_and_the_host_tries_again(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.report(server, "on", fault="no more memory")
    assert state(cloud, server)[0] == "ERROR"
    with cloud.db.read() as tx:
        before = tx.value(sa.select(servers.c.generation).where(servers.c.id == server))
    cloud.act("admin", server, os_resetState={"state": "active"})
    with cloud.db.read() as tx:
        assert tx.value(sa.select(servers.c.generation).where(servers.c.id == server)) == before + 1
    assert state(cloud, server) == ("ACTIVE", "active", None)


def test_verbs_are_called_off(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.act("alice", server, reboot={"type": "SOFT"})
    cloud.act("admin", server, os_resetState={"state": "active"})
    assert (cloud.verbs(server), state(cloud, server)) == ((), ("ACTIVE", "active", None))
    newest = cloud.get("alice", f"/servers/{server}/os-instance-actions")["instanceActions"][0]
    assert (newest["action"], newest["message"]) == ("reboot", "Error")


def test_an_order_to_delete_stands(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.good("alice", "DELETE", f"/servers/{server}")
    cloud.act("admin", server, os_resetState={"state": "error"})
    assert state(cloud, server) == ("ERROR", "error", "deleting")
    cloud.report(server, "absent")
    assert cloud.refused("alice", "GET", f"/servers/{server}")[0] == 404


def test_what_is_refused(cloud: Cloud) -> None:
    server = cloud.running()
    url = f"/servers/{server}/action"
    for bad in ({}, {"state": "paused"}, {"state": "error", "x": 1}, None):
        assert cloud.refused("admin", "POST", url, {"os-resetState": bad})[0] == 400
    assert cloud.refused("alice", "POST", url, {"os-resetState": {"state": "error"}})[0] == 403
    assert cloud.refused("admin", "POST", "/servers/no/action", {"os-resetState": {"state": "error"}})[0] == 404
