"""Resize, migrate, confirm, revert and evacuate as a client sees them: bodies, codes, texts, policies, history."""

from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core.tables import agents
from cumulet.nova import hosts
from cumulet.nova.model import Seen, ServerIntent
from cumulet.nova.move_scheduler import MoveScheduler
from cumulet.nova.tables import server_hosts, servers
from cumulet.placement import public as placement
from cumulet.placement.model import Resources
from tests.nova.api_cloud import Cloud


class Moving(Cloud):
    """With two hosts, a larger flavor, and hosts that report by name."""

    def __init__(self) -> None:
        super().__init__()
        self.large = self.add_flavor("m1.large", ram=1024, vcpus=2, disk=3)
        for host in ("h1", "h2"):
            self.add_host(host)
        self.moves = MoveScheduler(self.db, self.config, lambda: 1)

    def server(self) -> tuple[str, str, str]:
        """One that is on, its host, and the other host."""
        server = self.running()
        (host,) = (row.host for row in self.rows(server))
        return server, host, {"h1": "h2", "h2": "h1"}[host]

    def schedule(self) -> None:
        for move in self.moves.read().values():
            self.moves.place(move)

    def rows(self, server: str) -> list[Any]:
        with self.db.read() as tx:
            return list(tx.all(sa.select(server_hosts).where(server_hosts.c.server_id == server)))

    def wanted(self, server: str) -> dict[str, str]:
        return {row.host: row.wanted for row in self.rows(server)}

    def intent(self, server: str, host: str) -> ServerIntent:
        with self.db.read() as tx:
            return hosts.list_intents(tx, host, "secret")[server]

    def says(self, server: str, host: str, power: str, **seen: Any) -> None:
        with self.db.transaction() as tx:
            generation = tx.value(sa.select(servers.c.generation).where(servers.c.id == server))
            report = Seen(generation=generation, power=power, **{"reached": power == "on", **seen})
            hosts.record(tx, host, {server: report})

    def claims(self, server: str) -> Resources:
        with self.db.read() as tx:
            return placement.list_allocations(tx, [server]).get(server, Resources())

    def used(self, host: str) -> int:
        with self.db.read() as tx:
            capacity = placement.find_capacity(tx, host)
        assert capacity is not None
        return capacity.used.memory_mb

    def set_agent(self, host: str, **values: Any) -> None:
        with self.db.transaction() as tx:
            tx.write(sa.update(agents).where(agents.c.host == host).values(values))

    def share(self, *names: str) -> None:
        """These hosts' servers have their disks on one file system."""
        for host in names:
            with self.db.read() as tx:
                details = dict(tx.value(sa.select(agents.c.details).where(agents.c.host == host)) or {})
            inventory = {**(details.get("inventory") or {}), "details": {"shared_disks": "a file system"}}
            self.set_agent(host, details={**details, "inventory": inventory})

    def state(self, server: str) -> tuple[str, str, str | None]:
        shown = self.show("alice", server)
        return shown["status"], shown["OS-EXT-STS:vm_state"], shown["OS-EXT-STS:task_state"]

    def on_trial(self) -> tuple[str, str, str]:
        """Resized to the other host."""
        server, source, other = self.server()
        self.set_agent(source, enabled=False)
        self.act("alice", server, resize={"flavorRef": self.large})
        self.schedule()
        self.says(server, source, "off")
        self.says(server, other, "on")
        self.set_agent(source, enabled=True)
        return server, source, other

    def migrations(self, query: str = "", version: str = "") -> list[Any]:
        found: list[Any] = self.get("admin", f"/os-migrations{query}", version)["migrations"]
        return found


@pytest.fixture
def cloud() -> Moving:
    return Moving()


def test_resize_to_another_host(cloud: Moving) -> None:
    server, source, other = cloud.server()
    cloud.set_agent(source, enabled=False)
    cloud.act("alice", server, resize={"flavorRef": cloud.large})
    assert cloud.state(server) == ("RESIZE", "active", "resize_prep")
    cloud.says(server, source, "on")  # of the order, before there is a host
    assert cloud.state(server) == ("RESIZE", "active", "resize_prep")
    cloud.schedule()
    assert cloud.state(server) == ("RESIZE", "active", "resize_migrating")
    assert cloud.wanted(server) == {source: "keep", other: "run"}
    assert (cloud.used(source), cloud.used(other)) == (512, 1024)
    going, coming = cloud.intent(server, source), cloud.intent(server, other)
    assert (going.kept, coming.held, coming.memory_mb) == (True, True, 1024)
    assert coming.fetch is not None
    assert (coming.fetch.host, coming.fetch.address) == (source, "192.0.2.1")
    assert going.ticket == coming.fetch.ticket != ""
    cloud.says(server, source, "on")  # it shuts down
    assert cloud.intent(server, other).held
    cloud.says(server, source, "off")
    assert not cloud.intent(server, other).held
    cloud.says(server, other, "off", waiting="ports to be wired")
    assert cloud.state(server) == ("RESIZE", "active", "resize_finish")
    cloud.says(server, other, "on")
    assert cloud.state(server) == ("VERIFY_RESIZE", "resized", None)
    assert cloud.intent(server, other).fetch is None
    shown = cloud.show("admin", server)
    assert (shown["flavor"]["ram"], shown["OS-EXT-SRV-ATTR:host"]) == (1024, other)
    status, text = cloud.refused("alice", "POST", f"/servers/{server}/action", {"os-stop": None})
    assert (status, text) == (409, f"Cannot 'stop' instance {server} while it is in vm_state resized")


def test_confirm(cloud: Moving) -> None:
    server, source, other = cloud.on_trial()
    assert cloud.call("alice", "POST", f"/servers/{server}/action", {"confirmResize": None})[0] == 204
    assert cloud.state(server) == ("ACTIVE", "active", None)
    assert cloud.wanted(server) == {source: "absent", other: "run"}
    assert not cloud.intent(server, other).held
    assert cloud.intent(server, source).absent
    cloud.says(server, source, "absent")
    cloud.says(server, other, "on")
    assert cloud.wanted(server) == {other: "run"}
    assert (cloud.used(source), cloud.used(other)) == (0, 1024)
    actions = cloud.get("alice", f"/servers/{server}/os-instance-actions")["instanceActions"]
    assert [one["action"] for one in actions] == ["confirmResize", "resize", "create"]
    assert [one["message"] for one in actions] == [None] * 3
    assert cloud.migrations()[0]["status"] == "confirmed"
    for event in ("resize.start", "resize.end", "finish_resize.end", "resize.confirm.start", "resize.confirm.end"):
        assert cloud.notified(f"compute.instance.{event}"), event


def test_revert(cloud: Moving) -> None:
    server, source, other = cloud.on_trial()
    cloud.act("alice", server, revertResize=None)
    assert cloud.state(server) == ("REVERT_RESIZE", "resized", "resize_reverting")
    assert cloud.wanted(server) == {source: "run", other: "absent"}
    assert cloud.intent(server, source).held
    cloud.says(server, other, "absent")
    back = cloud.intent(server, source)
    assert (back.held, back.memory_mb, back.fetch) == (False, 512, None)
    cloud.says(server, source, "on")
    assert cloud.state(server) == ("ACTIVE", "active", None)
    assert (cloud.used(source), cloud.used(other)) == (512, 0)
    assert cloud.show("alice", server)["flavor"]["ram"] == 512
    assert cloud.migrations()[0]["status"] == "reverted"


def test_a_host_that_cannot_have_it_gives_it_back(cloud: Moving) -> None:
    server, source, other = cloud.server()
    cloud.act("admin", server, migrate={"host": other})
    cloud.schedule()
    cloud.says(server, source, "off")
    cloud.says(server, other, "off", fault="The disk is full.")
    assert cloud.wanted(server) == {source: "run", other: "absent"}
    assert cloud.state(server) == ("SHUTOFF", "stopped", "powering-on")
    cloud.says(server, other, "absent")
    cloud.says(server, source, "on")
    assert cloud.state(server) == ("ACTIVE", "active", None)
    (migration,) = cloud.migrations()
    assert (migration["status"], migration["migration_type"]) == ("error", "migration")
    actions = cloud.get("alice", f"/servers/{server}/os-instance-actions")["instanceActions"]
    assert (actions[0]["action"], actions[0]["message"]) == ("migrate", "Error")
    assert (cloud.used(source), cloud.used(other)) == (512, 0)


def test_on_one_host_it_is_a_verb(cloud: Moving) -> None:
    server, source, other = cloud.server()
    cloud.set_agent(other, enabled=False)
    cloud.act("alice", server, resize={"flavorRef": cloud.large})
    cloud.schedule()
    (verb,) = cloud.intent(server, source).verbs
    assert (verb.name, cloud.used(source)) == ("resize", 1536)
    cloud.says(server, source, "on", verbs_done=(verb.id,))
    assert cloud.state(server) == ("VERIFY_RESIZE", "resized", None)
    cloud.act("alice", server, revertResize=None)
    (verb,) = cloud.intent(server, source).verbs
    assert (verb.name, cloud.state(server)[0]) == ("revertResize", "REVERT_RESIZE")
    cloud.says(server, source, "on", verbs_done=(verb.id,))
    assert (cloud.state(server)[0], cloud.used(source)) == ("ACTIVE", 512)
    cloud.act("alice", server, resize={"flavorRef": cloud.large})
    cloud.schedule()
    (verb,) = cloud.intent(server, source).verbs
    cloud.says(server, source, "off", verbs_done=(verb.id,), verb_faults={str(verb.id): "too large"})
    cloud.says(server, source, "on")
    assert (cloud.state(server)[0], cloud.used(source)) == ("ACTIVE", 512)
    assert cloud.show("alice", server)["flavor"]["ram"] == 512


def test_no_host(cloud: Moving) -> None:
    server, _, other = cloud.server()
    cloud.set_agent(other, enabled=False)
    cloud.act("admin", server, migrate=None)
    cloud.schedule()
    assert cloud.state(server) == ("ACTIVE", "active", None)
    (action, *_) = cloud.get("admin", f"/servers/{server}/os-instance-actions")["instanceActions"]
    url = f"/servers/{server}/os-instance-actions/{action['request_id']}"
    (event,) = cloud.get("admin", url)["instanceAction"]["events"]
    assert event["details"].startswith("No valid host was found. 2 hosts; 2 left after 'alive', 1 left after")
    assert cloud.migrations()[0]["status"] == "error"


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"resize": {}}, 400, "flavorRef"),
    ({"resize": {"flavorRef": "none"}}, 400, "Flavor none could not be found."),
    ({"resize": {"flavorRef": "SAME"}}, 400, "When resizing, instances must change flavor!"),
    ({"resize": {"flavorRef": "SMALL"}}, 400, "Server disk was unable to be resized because: "),
    ({"resize": {"flavorRef": "HUGE"}}, 403, "Quota exceeded for cores: Requested 99, but already used 1 of 20"),
    ({"resize": {"flavorRef": "1", "x": 1}}, 400, "x"),
    ({"confirmResize": None}, 409, "Cannot 'confirmResize' instance"),
    ({"revertResize": None}, 409, "Cannot 'revertResize' instance"),
]


@pytest.mark.parametrize(("body", "code", "text"), REFUSED)
def test_what_is_refused(cloud: Moving, body: dict[str, Any], code: int, text: str) -> None:
    server = cloud.running(flavorRef=cloud.large)
    small, huge = cloud.flavor, cloud.add_flavor("huge", vcpus=101, disk=3)
    names = {"SAME": cloud.large, "SMALL": small, "HUGE": huge}
    cloud.good("admin", "PUT", "/os-quota-sets/red", {"quota_set": {"cores": 20}})
    if "flavorRef" in (body.get("resize") or {}):
        body = {"resize": {**body["resize"], "flavorRef": names.get(body["resize"]["flavorRef"], "none")}}
    status, said = cloud.refused("alice", "POST", f"/servers/{server}/action", body)
    assert status == code
    assert text.replace("used 1", "used 2") in said
    assert cloud.state(server)[0] == "ACTIVE"


def test_what_administrators_are_refused(cloud: Moving) -> None:
    server, source, other = cloud.server()
    action = f"/servers/{server}/action"
    assert cloud.refused("alice", "POST", action, {"migrate": None})[0] == 403
    assert cloud.refused("alice", "POST", action, {"evacuate": {}})[0] == 403
    for host, text in ((source, f"Cannot migrate to the host [{source}] where"), ("h9", "Compute host h9 could")):
        status, said = cloud.refused("admin", "POST", action, {"migrate": {"host": host}})
        assert (status, said.startswith(text)) == (400, True)
    assert cloud.refused("admin", "POST", action, {"migrate": {"host": other}}, "2.55")[0] == 400
    status, said = cloud.refused("admin", "POST", action, {"evacuate": {}})
    assert (status, said) == (400, f"Compute service of {source} is still in use.")
    cloud.set_agent(source, forced_down=True)
    refused = [
        ({"host": "h9"}, 404),
        ({"host": source}, 400),
        ({"onSharedStorage": False}, 400),
        ({"force": True}, 400),
    ]
    for wish, code in refused:
        assert cloud.refused("admin", "POST", action, {"evacuate": wish})[0] == code, wish
    assert cloud.refused("admin", "POST", action, {"evacuate": {"force": True}}, "2.29")[0] == 400
    assert cloud.refused("admin", "POST", action, {"evacuate": {"onSharedStorage": True}}, "2.13")[0] == 400


def test_evacuate(cloud: Moving) -> None:
    server, source, other = cloud.server()
    cloud.set_agent(source, forced_down=True)
    status, answer = cloud.call("admin", "POST", f"/servers/{server}/action", {"evacuate": {}}, "2.94")
    assert (status, answer) == (200, b"")
    assert cloud.state(server) == ("REBUILD", "active", "rebuilding")
    assert cloud.migrations()[0]["status"] == "accepted"
    cloud.schedule()
    assert cloud.wanted(server) == {source: "absent", other: "run"}
    new = cloud.intent(server, other)
    assert (new.held, new.launched, new.fetch) == (False, False, None)
    cloud.says(server, other, "on")
    assert cloud.state(server) == ("ACTIVE", "active", None)
    assert cloud.migrations("?migration_type=evacuation")[0]["status"] == "done"
    assert cloud.intent(server, source).absent
    cloud.good("alice", "DELETE", f"/servers/{server}")
    cloud.says(server, other, "absent")
    assert cloud.call("alice", "GET", f"/servers/{server}")[0] == 404
    assert cloud.wanted(server) == {source: "absent"}, "the dead host has yet to destroy it"
    cloud.says(server, source, "absent")
    assert cloud.wanted(server) == {}
    assert (cloud.used(source), cloud.used(other)) == (0, 0)


def test_an_evacuated_server_keeps_a_disk_that_both_hosts_have(cloud: Moving) -> None:
    """The dead host, should it come back, must leave it alone until the other one has it."""
    server, source, other = cloud.server()
    cloud.add_host("h3")
    cloud.share(source, other)
    cloud.set_agent(source, forced_down=True)
    action = f"/servers/{server}/action"
    for wish, version in (
        ({"onSharedStorage": False}, "2.13"),
        ({"onSharedStorage": True, "adminPass": "x"}, "2.13"),
        ({"host": "h3"}, "2.67"),
    ):
        assert cloud.refused("admin", "POST", action, {"evacuate": wish}, version)[0] == 400, wish
    cloud.set_agent(other, enabled=False)
    cloud.good("admin", "POST", action, {"evacuate": {}}, "2.14")
    cloud.schedule()
    assert cloud.migrations()[0]["status"] == "failed", "a host that has not the disk is no place to go"
    cloud.set_agent(other, enabled=True)
    wish = {"onSharedStorage": True}
    assert cloud.good("admin", "POST", action, {"evacuate": wish}, "2.13") == {"adminPass": None}
    cloud.schedule()
    assert cloud.wanted(server) == {source: "keep", other: "run"}
    new, old = cloud.intent(server, other), cloud.intent(server, source)
    assert (new.heir_of, new.held, old.kept, old.absent) == (source, False, True, False)
    cloud.says(server, other, "on")
    assert cloud.state(server) == ("ACTIVE", "active", None)
    assert cloud.intent(server, source).absent
    assert cloud.intent(server, other).heir_of == ""


def test_evacuated_servers_are_off_since_2_95(cloud: Moving) -> None:
    server, source, other = cloud.server()
    cloud.set_agent(source, forced_down=True)
    cloud.good("admin", "POST", f"/servers/{server}/action", {"evacuate": {"host": other}}, "2.95")
    cloud.schedule()
    cloud.says(server, other, "off")
    assert cloud.state(server) == ("SHUTOFF", "stopped", None)


def test_deleted_on_its_way(cloud: Moving) -> None:
    server, source, other = cloud.server()
    cloud.act("admin", server, migrate=None)
    cloud.schedule()
    cloud.good("alice", "DELETE", f"/servers/{server}")
    assert cloud.state(server) == ("ACTIVE", "active", "deleting")
    cloud.says(server, other, "absent")
    assert cloud.state(server)[2] == "deleting"
    cloud.says(server, source, "absent")
    assert cloud.call("alice", "GET", f"/servers/{server}")[0] == 404
    assert (cloud.used(source), cloud.used(other)) == (0, 0)
    assert cloud.moves.read() == {}


def test_an_administrator_takes_it_back(cloud: Moving) -> None:
    server, source, other = cloud.server()
    cloud.act("admin", server, migrate=None)
    cloud.schedule()
    cloud.act("admin", server, os_resetState={"state": "active"})
    assert cloud.wanted(server) == {source: "run", other: "absent"}
    assert cloud.migrations()[0]["status"] == "error"


def test_upsizing_counts_while_it_waits(cloud: Moving) -> None:
    server, *_ = cloud.server()
    cloud.good("admin", "PUT", "/os-quota-sets/red", {"quota_set": {"cores": 2}})
    cloud.act("alice", server, resize={"flavorRef": cloud.large})
    body = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none"}
    assert cloud.refused("alice", "POST", "/servers", {"server": body})[0] == 403


def test_lists(cloud: Moving) -> None:
    first, source, other = cloud.on_trial()
    second = cloud.running()
    cloud.act("admin", second, migrate=None)
    found = cloud.migrations()
    assert [one["instance_uuid"] for one in found] == [second, first]
    assert {key: found[1][key] for key in ("status", "migration_type", "source_compute", "dest_compute")} == {
        "status": "finished", "migration_type": "resize", "source_compute": source, "dest_compute": other,
    }  # fmt: skip
    assert [one["status"] for one in cloud.migrations("?status=pre-migrating")] == ["pre-migrating"]
    assert len(cloud.migrations(f"?instance_uuid={first}")) == 1
    assert len(cloud.migrations(f"?host={other}&migration_type=resize")) == 1
    page = cloud.get("admin", "/os-migrations?limit=1")
    assert [one["instance_uuid"] for one in page["migrations"]] == [second]
    assert f"marker={found[0]['uuid']}" in page["migrations_links"][0]["href"]
    assert "uuid" not in cloud.migrations(version="2.58")[0]
    assert "migration_type" not in cloud.migrations(version="2.22")[0]
    assert cloud.refused("admin", "GET", "/os-migrations?color=red")[0] == 400
    assert cloud.refused("alice", "GET", "/os-migrations")[0] == 403
    assert cloud.get("admin", f"/servers/{first}/migrations")["migrations"] == []
    status, text = cloud.refused("admin", "GET", f"/servers/{first}/migrations/{found[1]['id']}")
    assert (status, text) == (404, f"Migration {found[1]['id']} for server {first} is not live-migration.")
    assert cloud.refused("admin", "GET", f"/servers/{first}/migrations/99")[0] == 404
