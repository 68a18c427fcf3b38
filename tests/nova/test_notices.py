"""What changes something tells the world, in upstream's event types."""

from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core.tables import notifications
from tests.nova.api_cloud import Cloud

MUTATING = ("POST", "PUT", "DELETE")
OF_OTHERS = ("/v2.1/images", "/v2.1/os-floating-ips", "/v2.1/os-security-group")
"""Neutron and glance tell of these."""
SILENT = (
    "/v2.1/flavors",
    "/v2.1/os-services",
    "/v2.1/os-hosts",
    "/v2.1/os-quota",
    "/v2.1/os-server-external-events",
)
"""Of these upstream tells in another format only, its versioned one, or not at all."""
INSTANCE = "compute.instance."


class Walk:
    """Calls routes one after the other; knows what each has told, and which have been called."""

    def __init__(self) -> None:
        self.cloud, self.walked = Cloud(), set[tuple[str, str, str]]()
        self.cloud.add_host("h1")
        self._told = 0

    def new(self) -> list[str]:
        """What nova has told since the last look."""
        with self.cloud.db.read() as tx:
            rows = tx.all(sa.select(notifications).order_by(notifications.c.created_at))
        new, self._told = rows[self._told :], len(rows)
        return [row.event_type for row in new if not row.event_type.startswith("image.")]

    def step(self, who: str, method: str, url: str, body: Any, *events: str, version: str = "") -> Any:
        """One call that succeeds and tells of ``events``, neither more nor in another order."""
        self.new()
        answer = self.cloud.good(who, method, url, body, version)
        assert self.new() == list(events), (method, url)
        parts = f"/v2.1{url}".split("/")
        action = next(iter(body)) if url.endswith("/action") else ""
        self.walked |= {
            (method, route.path, action)
            for route in self.cloud.app.routes
            if (route.method, route.action) == (method, action)
            and len(route.path.split("/")) == len(parts)
            and all(a == b or a.startswith("{") for a, b in zip(route.path.split("/"), parts, strict=True))
        }
        return answer


@pytest.fixture
def walk() -> Walk:
    return Walk()


def around(kind: str, verb: str) -> tuple[str, str]:
    return f"{kind}.{verb}.start", f"{kind}.{verb}.end"


def test_what_no_host_has_to_know(walk: Walk) -> None:
    made = walk.step(
        "alice", "POST", "/os-keypairs", {"keypair": {"name": "k"}}, *around("keypair", "create"), version="2.10"
    )
    again = {"keypair": {"name": "l", "public_key": made["keypair"]["public_key"]}}
    walk.step("alice", "POST", "/os-keypairs", again, *around("keypair", "import"))
    walk.step("alice", "DELETE", "/os-keypairs/k", None, *around("keypair", "delete"))
    assert walk.cloud.notified("keypair.delete.end") == [{"tenant_id": "red", "user_id": "alice", "key_name": "k"}]
    wish = {"server_group": {"name": "g", "policy": "affinity"}}
    group = walk.step("alice", "POST", "/os-server-groups", wish, "servergroup.create")["server_group"]["id"]
    walk.step("alice", "DELETE", f"/os-server-groups/{group}", None, "servergroup.delete")
    told = walk.cloud.notified("servergroup.create")
    assert told == [{"server_group_id": group, "name": "g", "policies": ["affinity"]}]
    wish = {"aggregate": {"name": "a"}}
    number = walk.step("admin", "POST", "/os-aggregates", wish, *around("aggregate", "create"))["aggregate"]["id"]
    url = f"/os-aggregates/{number}"
    walk.step("admin", "PUT", url, {"aggregate": {"name": "b"}}, *around("aggregate", "updateprop"))
    for action, body, verb in (
        ("add_host", {"host": "h1"}, "addhost"),
        ("set_metadata", {"metadata": {"k": "v"}}, "updatemetadata"),
        ("remove_host", {"host": "h1"}, "removehost"),
    ):
        walk.step("admin", "POST", f"{url}/action", {action: body}, *around("aggregate", verb))
    walk.step("admin", "DELETE", url, None, *around("aggregate", "delete"))
    assert walk.cloud.notified("aggregate.addhost.end") == [
        {"aggregate_id": number, "name": "b", "host_name": "h1"}
    ]
    elsewhere = {
        (route.method, route.path, route.action)
        for route in walk.cloud.app.routes
        if route.method in MUTATING and not route.path.startswith(("/v2.1/servers", *OF_OTHERS, *SILENT))
    }
    assert elsewhere == walk.walked


def test_servers(walk: Walk) -> None:
    """The start is told with the order, the end when the host has said that it is done."""
    cloud = walk.cloud
    wish = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none"}
    made = walk.step("alice", "POST", "/servers", {"server": wish}, f"{INSTANCE}create.start")
    server = made["server"]["id"]
    cloud.place()
    cloud.report(server, "on")
    assert walk.new() == [f"{INSTANCE}create.end"]
    url = f"/servers/{server}"
    walk.step("alice", "PUT", url, {"server": {"name": "other"}}, f"{INSTANCE}update")
    for action, body, verb, power in (
        ("os-stop", None, "power_off", "off"),
        ("os-start", None, "power_on", "on"),
        ("pause", None, "pause", "paused"),
        ("unpause", None, "unpause", "on"),
        ("suspend", None, "suspend", "suspended"),
        ("resume", None, "resume", "on"),
        ("reboot", {"type": "HARD"}, "reboot", "on"),
        ("rebuild", {"imageRef": cloud.image}, "rebuild", "on"),
        ("createImage", {"name": "i"}, "snapshot", "on"),
    ):
        walk.step("alice", "POST", f"{url}/action", {action: body}, f"{INSTANCE}{verb}.start")
        cloud.report(server, power, reached=True, verbs_done=cloud.verbs(server))
        assert f"{INSTANCE}{verb}.end" in walk.new(), action
    for state in ("error", "active"):
        walk.step("admin", "POST", f"{url}/action", {"os-resetState": {"state": state}}, f"{INSTANCE}update")
    updates = cloud.notified(f"{INSTANCE}update")
    assert sorted(told["state"] for told in updates) == ["active", "active", "error"]
    assert {(told["instance_id"], told["host"]) for told in updates} == {(server, "h1")}
    walk.step("alice", "DELETE", url, None, f"{INSTANCE}delete.start")
    (told,) = cloud.notified(f"{INSTANCE}pause.end")
    assert (told["instance_id"], told["state"], told["host"], told["tenant_id"]) == (server, "paused", "h1", "red")


def test_what_was_refused_is_not_told(walk: Walk) -> None:
    cloud = walk.cloud
    walk.new()
    assert (
        cloud.refused("rita", "POST", "/os-server-groups", {"server_group": {"name": "g", "policy": "affinity"}})[0]
        == 403
    )
    assert cloud.refused("admin", "POST", "/os-aggregates", {"aggregate": {"name": ""}})[0] == 400
    assert walk.new() == []
