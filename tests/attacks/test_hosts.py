"""A stolen host: it knows and changes nothing of the others, and its lies are about itself (host boundary)."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core.secrets import host_token
from cumulet.core.tables import metadata
from cumulet.glance.public import image_ticket
from tests.attacks.doors import SECRETS, Doors

CONDUCTOR, NEUTRON, GLANCE = "nova-conductor", "neutron-server", "glance-api"
INVENTORY = {
    "vcpus": 4, "memory_mb": 4096, "disk_gb": 10, "virt_type": "kvm", "hypervisor_version": 1, "cpu_model": "x",
    "address": "192.0.2.2",
}  # fmt: skip


class Two:
    """Alice's server, network and router are on h1; h2 has a server of the administrator's."""

    def __init__(self, place: Path) -> None:
        self.doors = doors = Doors(place)
        doors.add_host("h1")
        self.network, subnet = doors.network()
        public = doors.public_network()
        gateway = {"external_gateway_info": {"network_id": public}}
        self.router = doors.make(NEUTRON, "alice", "/v2.0/routers", "router", **gateway)["id"]
        url = f"/v2.0/routers/{self.router}/add_router_interface"
        doors.good("alice", NEUTRON, "PUT", url, {"subnet_id": subnet})
        secret: dict[str, Any] = {"user_data": "Y2FuYXJ5", "config_drive": True}
        self.server = doors.server(networks=[{"uuid": self.network}], **secret)
        doors.run(self.server)
        self.port = doors.good("alice", NEUTRON, "GET", f"/v2.0/ports?device_id={self.server}")["ports"][0]
        floating = {"floating_network_id": public, "port_id": self.port["id"]}
        self.floating = doors.make(NEUTRON, "alice", "/v2.0/floatingips", "floatingip", **floating)["id"]
        doors.add_host("h2")
        doors.ids["image of admin"] = doors.ids["image of alice"]
        self.other = doors.server("admin", availability_zone="nova:h2")
        doors.run(self.other, "h2")

    def dump(self) -> dict[str, list[Any]]:
        """All that the cloud knows, but for signs of life."""
        with self.doors.db.read() as tx:
            tables = [table for table in metadata.sorted_tables if table.name != "agents"]
            return {table.name: sorted(map(repr, tx.all(sa.select(table)))) for table in tables}

    def as_h2(self, name: str, method: str, url: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        return self.doors.call("host:h2", name, method, url, body, **headers)[:2]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    """One for all: what is tried here changes nothing, or nothing but h2."""
    return Two(tmp_path_factory.mktemp("two"))


def test_a_host_reads_only_what_is_on_it(two: Two) -> None:
    for name, url in ((CONDUCTOR, "servers"), (NEUTRON, "ports"), (NEUTRON, "dhcp"), (NEUTRON, "routers")):
        status, mine = two.as_h2(name, "GET", f"/hosts/h2/{url}")
        assert status == 200
        for foreign in (two.server, two.port["id"], two.network, two.router, "10.0.0."):
            assert foreign not in str(mine), (url, foreign)
        for path in (
            f"/hosts/h1/{url}",
            f"/hosts/h2/../h1/{url}",
            f"/hosts/h2%2f..%2fh1/{url}",
            f"/hosts//h1/{url}",
        ):
            assert two.as_h2(name, "GET", path)[0] in (403, 404), path
    assert two.other in two.as_h2(CONDUCTOR, "GET", "/hosts/h2/servers")[1]
    assert two.as_h2(CONDUCTOR, "GET", f"/hosts/h2/servers/{two.server}/config-drive")[0] == 404
    assert two.as_h2(CONDUCTOR, "GET", f"/hosts/h1/servers/{two.server}/config-drive")[0] == 403
    ip = two.port["fixed_ips"][0]["ip_address"]
    for text in (
        f"network={two.network}&ip={ip}",
        f"router={two.router}&ip={ip}",
        f"ip={ip}",
        f"network=&router=&ip={ip}",
    ):
        assert two.as_h2(NEUTRON, "GET", f"/hosts/h2/owner?{text}") == (200, {"device_id": "", "project_id": ""})
    assert two.doors.call("host:h1", NEUTRON, "GET", f"/hosts/h1/owner?network={two.network}&ip={ip}")[1] == {
        "device_id": two.server, "project_id": two.doors.ids["red"]
    }  # fmt: skip


@pytest.mark.parametrize("ordered_away", [False, True])
def test_reports_about_servers_of_others_change_nothing(tmp_path: Path, ordered_away: bool) -> None:
    two = Two(tmp_path)
    if ordered_away:
        two.doors.good("alice", "nova-api", "DELETE", f"/v2.1/servers/{two.server}")
    before = two.dump()
    for power in ("on", "off", "absent", "crashed", "paused"):
        for generation in (0, 1, 2, 3):
            seen = {
                "generation": generation,
                "power": power,
                "fault": "mine",
                "verbs_done": [1, 2],
                "reached": True,
            }
            reports = {two.server: seen, "x": seen, "": seen}
            assert two.as_h2(CONDUCTOR, "POST", "/hosts/h2/servers", reports)[0] == 204
            assert two.as_h2(CONDUCTOR, "POST", "/hosts/h1/servers", {two.server: seen})[0] == 403
    assert two.dump() == before


def test_a_host_ends_no_server_that_nobody_ordered_away(two: Two) -> None:
    """Its own: it may lie that it is off or gone, but what the user has is released by the user's order alone."""
    claim = two.dump()["allocations"]
    for generation in (0, 1, 2, 99):
        seen = {"generation": generation, "power": "absent"}
        assert two.as_h2(CONDUCTOR, "POST", "/hosts/h2/servers", {two.other: seen})[0] == 204
    assert two.dump()["allocations"] == claim
    assert two.doors.good("admin", "nova-api", "GET", f"/v2.1/servers/{two.other}")["server"]["id"] == two.other


def test_reports_about_networks_of_others_change_nothing(two: Two) -> None:
    before = two.dump()
    for generation in (0, 1, 2, 3, 9):
        for running in (True, False):
            seen = {"generation": generation, "running": running, "fault": "mine"}
            routers = {two.router: {**seen, "floating": [two.floating]}}
            for url, body in (
                ("ports", {"wired": {two.port["id"]: generation}}), ("dhcp", {two.network: seen}),
                ("routers", routers),
            ):  # fmt: skip
                assert two.as_h2(NEUTRON, "POST", f"/hosts/h2/{url}", body)[0] == 204
                assert two.as_h2(NEUTRON, "POST", f"/hosts/h1/{url}", body)[0] == 403
    assert two.dump() == before


def test_generations_that_do_not_exist_are_not_believed(two: Two) -> None:
    """A host cannot report ahead: what it has not been told of it cannot have done."""
    before = two.dump()
    h1 = "host:h1"
    for generation in (99, 2**40, 2**70):
        seen = {"generation": generation, "running": True, "floating": [two.floating]}
        for name, url, body in (
            (CONDUCTOR, "servers", {two.server: {"generation": generation, "power": "on"}}),
            (NEUTRON, "ports", {"wired": {two.port["id"]: generation}}), (NEUTRON, "dhcp", {two.network: seen}),
            (NEUTRON, "routers", {two.router: seen}),
        ):  # fmt: skip
            assert two.doors.call(h1, name, "POST", f"/hosts/h1/{url}", body)[0] in (204, 400), url
    assert two.dump() == before


def test_an_image_goes_to_the_host_it_is_meant_for_with_its_ticket_only(two: Two) -> None:
    image, secret = two.doors.ids["image of alice"], SECRETS.host_secret
    url = f"/hosts/h2/images/{image}/file"
    assert two.as_h2(GLANCE, "GET", url, X_Image_Ticket=image_ticket(secret, image, "h2"))[0] == 200
    for ticket in (
        "", "x", image_ticket(secret, image, "h1"), image_ticket(secret, "other", "h2"), host_token(secret, "h2"),
        image_ticket("another", image, "h2"), image_ticket(secret, image, "h2")[:-1], "\u00e9",
    ):  # fmt: skip
        assert two.as_h2(GLANCE, "GET", url, X_Image_Ticket=ticket)[0] == 401, ticket
    mine = image_ticket(secret, image, "h1")
    assert two.as_h2(GLANCE, "GET", f"/hosts/h1/images/{image}/file", X_Image_Ticket=mine)[0] == 403
    assert two.doors.call("alice", GLANCE, "GET", url, X_Image_Ticket=image_ticket(secret, image, "h2"))[0] == 401
    for action, expected in (("deactivate", 403), ("reactivate", 200)):
        two.doors.good("alice", GLANCE, "POST", f"/v2/images/{image}/actions/{action}")
        assert two.as_h2(GLANCE, "GET", url, X_Image_Ticket=image_ticket(secret, image, "h2"))[0] == expected


def test_a_host_lives_under_its_own_name_and_trade(two: Two) -> None:
    beat = {"started_at": "2026-01-01T00:00:00.000000Z", "details": {}}
    from cumulet.core.tables import agents

    def living() -> set[tuple[str, str]]:
        with two.doors.db.read() as tx:
            return {(row.binary, row.host) for row in tx.all(sa.select(agents))}

    before = living()
    for name in (CONDUCTOR, NEUTRON):
        for binary in ("nova-conductor", "nova-scheduler", "keystone", "x", "nova-compute%00", "neutron-server"):
            assert two.as_h2(name, "POST", f"/hosts/h2/heartbeat/{binary}", beat)[0] in (204, 400, 404)
        assert two.as_h2(name, "POST", "/hosts/h1/heartbeat/nova-compute", beat)[0] == 403
    assert living() == before


LIES: list[Any] = [
    {}, {"inventory": 5}, {"inventory": None}, {"inventory": []}, {"inventory": {"vcpus": "x"}}, {"unknown": 7},
    {"inventory": {**INVENTORY, "address": 5}}, {"inventory": {**INVENTORY, "details": []}}, {"address": ["x"]},
    {"inventory": {**INVENTORY, "vcpus": -5}}, {"failing": "x"}, {"tunnel_address": {"a": 1}},
    {"tunnel_address": 9}, {"inventory": {**INVENTORY, "address": "127.0.0.1:22/x?"}},
    {"inventory": {**INVENTORY, "address": "a\r\nb: c"}},
]  # fmt: skip
TIMES = ["", "x", "2026", "9" * 60, "0000-00-00T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z"]


@pytest.mark.parametrize("lie", LIES)
def test_lies_of_one_host_break_no_view(two: Two, lie: Any) -> None:
    """Whatever a host says of itself, lists of all hosts, other hosts' agents and servers are as before."""
    for started_at in TIMES:
        beat = {"started_at": started_at, "details": lie}
        for name, binary in ((CONDUCTOR, "nova-compute"), (NEUTRON, "neutron-openvswitch-agent")):
            assert two.as_h2(name, "POST", f"/hosts/h2/heartbeat/{binary}", beat)[0] in (204, 400)
    _everything_answers(two)


def _everything_answers(two: Two) -> None:
    for name, url in (
        ("nova-api", "/v2.1/os-hypervisors/detail"), ("nova-api", "/v2.1/os-services"),
        ("nova-api", "/v2.1/servers/detail"), ("nova-api", "/v2.1/os-availability-zone/detail"),
        (NEUTRON, "/v2.0/agents"), (NEUTRON, "/v2.0/ports"), ("nova-api", f"/v2.1/servers/{two.other}"),
    ):  # fmt: skip
        status, data, _ = two.doors.call("admin", name, "GET", url)
        assert status == 200, (url, data)
    for name, url in (
        (CONDUCTOR, "servers"),
        (CONDUCTOR, "inventory"),
        (NEUTRON, "ports"),
        (NEUTRON, "dhcp"),
        (NEUTRON, "routers"),
    ):
        for host in ("h1", "h2"):
            assert two.doors.call(f"host:{host}", name, "GET", f"/hosts/{host}/{url}")[0] == 200, (url, host)
    log = {"os-getConsoleOutput": {"length": 1}}
    assert two.doors.call("admin", "nova-api", "POST", f"/v2.1/servers/{two.other}/action", log)[0] in (404, 503)


@pytest.mark.parametrize("field", ["vcpus", "memory_mb", "disk_gb", "hypervisor_version"])
@pytest.mark.parametrize("value", [-1, 2**31, 2**63, 2**100, 1.5, "many", None])
def test_inventories_are_numbers_of_this_world(two: Two, field: str, value: Any) -> None:
    body = {**INVENTORY, field: value}
    assert two.as_h2(CONDUCTOR, "POST", "/hosts/h2/inventory", body)[0] == 400
    _everything_answers(two)


def test_reports_are_bounded(two: Two) -> None:
    """Words, states and numbers that no host says honestly."""
    lies: tuple[Any, ...] = (
        {"generation": 1, "power": "flying"}, {"generation": -1, "power": "on"},
        {"generation": 1, "power": "x" * 9999}, {"generation": 1, "power": "on", "verbs_done": ["x"]},
        {"generation": "x", "power": "on"}, 5, [],
    )  # fmt: skip
    for seen in lies:
        status, data = two.as_h2(CONDUCTOR, "POST", "/hosts/h2/servers", {two.other: seen})
        assert status == 400, (seen, data)
    long = {"generation": 1, "power": "on", "fault": "y" * 200_000, "waiting": "z" * 200_000, "boot_id": "b" * 64}
    assert two.as_h2(CONDUCTOR, "POST", "/hosts/h2/servers", {two.other: long})[0] == 204
    shown = two.doors.good("admin", "nova-api", "GET", f"/v2.1/servers/{two.other}")
    assert len(str(shown)) < 20_000
    many = {f"{number}": {"generation": 1, "power": "on"} for number in range(40_000)}
    assert two.as_h2(CONDUCTOR, "POST", "/hosts/h2/servers", many)[0] in (204, 400)
    many_wired = {"wired": {f"{number}": 1 for number in range(2_000)}}
    assert two.as_h2(NEUTRON, "POST", "/hosts/h2/ports", many_wired)[0] in (204, 400)
