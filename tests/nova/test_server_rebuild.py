"""rebuild: a new disk for the same server."""

import base64
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.nova.tables import servers
from tests.nova.api_cloud import GIB, Cloud

ALL: dict[str, Any] = {
    "name": "new", "description": "changed", "metadata": {"a": "1"}, "accessIPv4": "192.0.2.7",
    "accessIPv6": "2001:DB8::1", "OS-DCF:diskConfig": "AUTO", "hostname": "web", "adminPass": "secret",
    "user_data": base64.b64encode(b"#!/bin/sh").decode(), "key_name": "laptop", "preserve_ephemeral": False,
}  # fmt: skip


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host("h1")
    return cloud


def rebuild(cloud: Cloud, server: str, image: str, version: str = "", **more: Any) -> Any:
    body = {"rebuild": {"imageRef": image, **more}}
    return cloud.good("alice", "POST", f"/servers/{server}/action", body, version)["server"]


def refused(cloud: Cloud, server: str, image: str, who: str = "alice", version: str = "", **more: Any) -> Any:
    body = {"rebuild": {"imageRef": image, **more}}
    return cloud.refused(who, "POST", f"/servers/{server}/action", body, version)


def state(cloud: Cloud, server: str) -> tuple[str, str, str | None]:
    shown = cloud.show("alice", server)
    return shown["status"], shown["OS-EXT-STS:vm_state"], shown["OS-EXT-STS:task_state"]


def wish(cloud: Cloud, server: str) -> Any:
    with cloud.db.read() as tx:
        return tx.find(sa.select(servers).where(servers.c.id == server))


def test_a_running_server_gets_a_new_disk_and_is_on_again(cloud: Cloud) -> None:
    server = cloud.running(networks=[{"uuid": cloud.network()}])
    before, other = cloud.show("alice", server), cloud.add_image(name="other")
    cloud.hints.clear()
    answer = rebuild(cloud, server, other)
    assert len(answer.pop("adminPass")) == 12
    assert answer == cloud.show("alice", server) | {"user_data": None}
    assert {("nova.servers", server), ("nova.hosts.h1", server)} <= set(cloud.hints)
    assert state(cloud, server) == ("REBUILD", "active", "rebuilding")
    assert cloud.get("alice", "/servers?status=REBUILD")["servers"][0]["id"] == server
    assert wish(cloud, server).image["id"] == answer["image"]["id"] == other
    assert refused(cloud, server, other)[0] == 409
    (verb,) = cloud.verbs(server)
    cloud.report(server, "on", verbs_done=(verb,))
    assert state(cloud, server) == ("ACTIVE", "active", None)
    after = cloud.show("alice", server)
    for key in ("addresses", "created", "hostId", "flavor", "name"):
        assert after[key] == before[key]
    newest = cloud.get("alice", f"/servers/{server}/os-instance-actions")["instanceActions"][0]
    assert (newest["action"], newest["message"]) == ("rebuild", None)
    for event in ("rebuild.start", "rebuild.end"):
        assert len(cloud.notified(f"compute.instance.{event}")) == 1


def test_what_is_changed_on_the_occasion(cloud: Cloud) -> None:
    cloud.good("alice", "POST", "/os-keypairs", {"keypair": {"name": "laptop"}}, "2.2")
    server = cloud.running(metadata={"old": "1"})
    answer = rebuild(cloud, server, cloud.image, **ALL)
    for key in ("name", "description", "metadata", "accessIPv4", "OS-DCF:diskConfig", "adminPass", "key_name"):
        assert answer[key] == ALL[key]
    assert answer["accessIPv6"] == "2001:db8::1"
    assert answer["OS-EXT-SRV-ATTR:hostname"] == "web"
    assert wish(cloud, server).user_data == answer["user_data"] == ALL["user_data"]
    cloud.report(server, "on", verbs_done=cloud.verbs(server))
    answer = rebuild(cloud, server, cloud.image, user_data=None, key_name=None)
    assert (answer["user_data"], answer["key_name"], answer["metadata"]) == (None, None, {"a": "1"})


def test_old_versions_answer_with_less(cloud: Cloud) -> None:
    server = cloud.running()
    answer = rebuild(cloud, server, cloud.image, "2.1")
    assert {"OS-EXT-STS:vm_state", "key_name", "description", "user_data", "tags"} & answer.keys() == set()
    assert answer["adminPass"]
    for name, version in (
        ("description", "2.18"),
        ("key_name", "2.53"),
        ("user_data", "2.56"),
        ("hostname", "2.89"),
    ):
        assert refused(cloud, server, cloud.image, version=version, **{name: "x"})[0] == 400


def test_a_server_that_is_off_stays_off_and_one_in_error_comes_up(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.act("alice", server, os_stop=None)
    cloud.report(server, "off", reached=False)
    rebuild(cloud, server, cloud.image)
    assert state(cloud, server) == ("REBUILD", "stopped", "rebuilding")
    assert wish(cloud, server).power == "off"
    cloud.report(server, "off", reached=False, fault="the image cannot be fetched")
    shown = cloud.show("alice", server)
    assert (shown["status"], shown["fault"]["message"]) == ("ERROR", "the image cannot be fetched")
    newest = cloud.get("alice", f"/servers/{server}/os-instance-actions")["instanceActions"][0]
    assert (newest["action"], newest["message"]) == ("rebuild", "Error")
    rebuild(cloud, server, cloud.image)
    assert state(cloud, server) == ("REBUILD", "active", "rebuilding")
    cloud.report(server, "on", verbs_done=cloud.verbs(server))
    assert state(cloud, server) == ("ACTIVE", "active", None)


def test_what_is_refused(cloud: Cloud) -> None:
    server, other = cloud.running(), cloud.add_image()
    assert refused(cloud, server, "nope") == (400, "Cannot find image for rebuild")
    large, queued = cloud.add_image(virtual_size=2 * GIB), cloud.add_image(stored_at=None, attempt=None)
    theirs = cloud.add_image(owner="blue", visibility="private")
    for image in (large, queued, theirs, ""):
        assert refused(cloud, server, image)[0] == 400
    bad: dict[str, Any]
    for bad in (
        {"name": ""},
        {"accessIPv4": "x"},
        {"hostname": "a b"},
        {"metadata": {"": "x"}},
        {"user_data": "%"},
        {"key_name": "none"},
        {"flavorRef": "1"},
        {"name": 1},
        {"OS-DCF:diskConfig": "x"},
    ):
        assert refused(cloud, server, other, **bad)[0] == 400
    assert cloud.refused("alice", "POST", f"/servers/{server}/action", {"rebuild": {}})[0] == 400
    many = {str(number): "x" for number in range(129)}
    assert refused(cloud, server, other, metadata=many)[0] == 403
    assert refused(cloud, server, other, "rita")[0] == 403
    assert refused(cloud, server, other, "bob")[0] == 404
    cloud.act("alice", server, pause=None)
    assert refused(cloud, server, other)[0] == 409
    cloud.report(server, "paused", reached=False)
    assert refused(cloud, server, other) == (
        409,
        f"Cannot 'rebuild' instance {server} while it is in vm_state paused",
    )
    cloud.act("alice", server, unpause=None)
    cloud.report(server, "on")
    cloud.act("alice", server, lock=None)
    assert refused(cloud, server, other) == (409, f"Instance {server} is locked")
    assert wish(cloud, server).image_id == cloud.image
    never = cloud.create()
    cloud.place()
    cloud.report(never, "off", fault="bad image", reached=False)
    assert refused(cloud, never, other)[0] == 409
