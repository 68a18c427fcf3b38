"""Bombs of scale, and definitions that break an agent for all (families NET-5 and NET-7)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from cumulet.core.tables import metadata
from cumulet.neutron import tables
from cumulet.neutron.l2.plan import Device, Look, plan_wiring
from cumulet.neutron.model import DhcpIntent, RouterIntent, WireIntent, device_name
from cumulet.sim.world import IMAGE, World
from tests.attacks.doors import Doors
from tests.neutron.conftest import Cloud


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


# ── NET-5: too much is refused, and much costs no more than its size ─────────────────────────────────────────


def test_bombs_of_one_request(cloud: Cloud) -> None:
    network, subnet = cloud.network()
    port = cloud.create("alice", "port", network_id=network)["id"]
    group = cloud.create("alice", "security_group", name="g")["id"]
    router = cloud.create("alice", "router")["id"]
    many = [f"10.{n >> 8}.{n & 255}.1" for n in range(10_000)]
    pairs = [{"ip_address": ip} for ip in many]
    routes = [{"destination": f"{ip}/32", "nexthop": "10.0.0.9"} for ip in many]
    rule = {"security_group_id": group, "direction": "ingress", "protocol": "tcp"}
    rules = [{**rule, "port_range_min": n, "port_range_max": n} for n in range(1, 3000)]
    bombs: list[tuple[str, str, Any, int]] = [
        ("PUT", f"/ports/{port}", {"port": {"allowed_address_pairs": pairs}}, 400),
        ("PUT", f"/ports/{port}", {"port": {"fixed_ips": [{"subnet_id": subnet}] * 10_000}}, 400),
        ("PUT", f"/ports/{port}", {"port": {"security_groups": [str(n) for n in range(10_000)]}}, 400),
        ("PUT", f"/ports/{port}", {"port": {"extra_dhcp_opts": [{"opt_name": f"a{n}", "opt_value": "x"}
                                                                for n in range(10_000)]}}, 400),
        ("PUT", f"/routers/{router}", {"router": {"routes": routes}}, 400),
        ("PUT", f"/subnets/{subnet}", {"subnet": {"host_routes": routes}}, 400),
        ("PUT", f"/subnets/{subnet}", {"subnet": {"dns_nameservers": many}}, 400),
        ("PUT", f"/subnets/{subnet}", {"subnet": {"allocation_pools": [{"start": ip, "end": ip} for ip in many]}},
         400),
        ("POST", "/ports", {"ports": [{"network_id": network}] * 10_000}, 409),
        ("POST", "/networks", {"networks": [{}] * 10_000}, 409),
        ("POST", "/security-group-rules", {"security_group_rules": rules}, 409),
        ("POST", "/security-groups", {"security_groups": [{"name": str(n)} for n in range(1000)]}, 409),
        ("PUT", f"/networks/{network}/tags", {"tags": [str(n) for n in range(10_000)]}, 400),
    ]  # fmt: skip
    with cloud.db.read() as tx:
        before = [tx.value(sa.select(sa.func.count()).select_from(table)) for table in metadata.sorted_tables]
    for method, url, body, expected in bombs:
        assert cloud.refused("alice", method, url, body)[0] == expected, url
    with cloud.db.read() as tx:
        after = [tx.value(sa.select(sa.func.count()).select_from(table)) for table in metadata.sorted_tables]
    assert after == before


def test_bodies_without_end_are_cut_off(doors: Doors) -> None:
    """By every front, before they are in memory, whoever sends them."""
    import asyncio

    from tests.attacks.street import Street, routes
    from tests.glance.rig import ask

    street = Street(doors.place / "more")
    for name, line, route in routes(street, "POST", "PUT", "PATCH"):
        if route.streams:
            continue
        sent = 0

        def endless() -> Any:
            nonlocal sent
            while sent < 64 << 20:
                sent += 1 << 20
                yield bytes(1 << 20)

        answer = asyncio.run(ask(street.doors.apps[name], route.method, street.url(route), endless()))
        assert answer.status == 413, (name, line, answer.status)
        assert sent <= (18 << 20 if route.policy == "host" else 3 << 20), (name, line)


def intents(cloud: Cloud) -> WireIntent:
    return msgspec.convert(cloud.get("host:c1", "/hosts/c1/ports"), WireIntent)


def flows_of(intent: WireIntent) -> int:
    devices = tuple(Device(device_name(port.id), port.id, 10 + n) for n, port in enumerate(intent.ports))
    wiring = plan_wiring(intent, Look("netdev", True, devices, to_external=1))
    assert not wiring.reasons
    return sum(len(flows) for flows in wiring.flows.values())


def test_a_group_that_lets_in_itself_costs_its_size(cloud: Cloud) -> None:
    """OSSA-2013-020: each new member made every member's rules anew.  Twice the ports: twice intent and flows."""
    network, _ = cloud.network(cidr="10.0.0.0/16")
    sizes = []
    for _ in range(2):
        ports = [{"network_id": network, "binding:host_id": "c1"}] * 60
        cloud.good("admin", "POST", "/ports", {"ports": [{**port, "project_id": "red"} for port in ports]})
        intent = intents(cloud)
        sizes.append((len(msgspec.json.encode(intent)), flows_of(intent)))
    assert len(intent.ports) == 120
    for one, two in zip(*sizes, strict=True):
        assert two < 2.3 * one, sizes


def test_pairs_and_rules_add_up_they_do_not_multiply(cloud: Cloud) -> None:
    network, _ = cloud.network(cidr="10.0.0.0/16")
    cloud.good("admin", "PUT", "/quotas/red", {"quota": {"security_group_rule": -1}})
    group = cloud.create("alice", "security_group", name="g")["id"]
    for n in range(20):
        pairs = [{"ip_address": f"10.1.{n}.{k}"} for k in range(10)]
        port = cloud.create(
            "alice", "port", network_id=network, security_groups=[group], allowed_address_pairs=pairs
        )
        cloud.update("admin", "port", port["id"], binding__host_id="c1")
    sizes = []
    for half in range(2):
        rule = {"security_group_id": group, "direction": "ingress", "protocol": "tcp"}
        rules = [
            {**rule, "port_range_min": n, "port_range_max": n} for n in range(1000 + half * 50, 1050 + half * 50)
        ]
        cloud.good("alice", "POST", "/security-group-rules", {"security_group_rules": rules})
        cloud.good("alice", "POST", "/security-group-rules", {"security_group_rule": {
            "security_group_id": group, "direction": "ingress", "remote_group_id": group,
            "protocol": "udp" if half else "icmp"}})  # fmt: skip
        sizes.append(flows_of(intents(cloud)))
    assert sizes[1] < 2.2 * sizes[0], sizes


def test_wide_networks_are_not_walked(cloud: Cloud) -> None:
    """An address of 2^24 or 2^64 is chosen as quickly as one of 2^8."""
    import time

    for cidr in ("10.0.0.0/8", "fd00::/32", "fd01::/64"):
        network, subnet = cloud.network(cidr=cidr)
        started = time.process_time()
        for _ in range(20):
            cloud.create("alice", "port", network_id=network)
        if cidr.startswith("10"):
            last = {"subnet_id": subnet, "ip_address": "10.255.255.254"}
            cloud.create("alice", "port", network_id=network, fixed_ips=[last])
        assert time.process_time() - started < 2, cidr


# ── NET-7: one bad thing is one bad thing ────────────────────────────────────────────────────────────────────


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def check_others(world: World, name: str) -> None:
    """Alice's network, router, floating IP and a new server of hers: all as if nothing were."""
    server = world.create_server(name)
    world.settle()
    assert world.status(server) == "ACTIVE"
    port = world.port_of(server)
    assert port["status"] == "ACTIVE"
    wish = {"floating_network_id": world.base["public"], "port_id": port["id"]}
    floating = world.call(world.neutron, "POST", "/v2.0/floatingips", {"floatingip": wish})["floatingip"]
    world.settle()
    url = f"/v2.0/floatingips/{floating['id']}"
    assert world.call(world.neutron, "GET", url)["floatingip"]["status"] == "ACTIVE"
    router = world.call(world.neutron, "GET", f"/v2.0/routers/{world.base['router']}")["router"]
    assert router["status"] == "ACTIVE"
    leases = [h.dhcp.networks.get(world.base["network"]) for h in world.hosts.values()]
    assert any(port["mac_address"] in one.read["hosts"] for one in leases if one)


def poisoned(method: Callable[[Any], Any], bad: str) -> Callable[[Any], Any]:
    """A method of the host that fails for one thing, with an error that nobody foresaw."""

    def ensure(intent: DhcpIntent | RouterIntent) -> Any:
        if bad in (getattr(intent, "network_id", ""), getattr(intent, "id", "")):
            raise ZeroDivisionError("poison")
        return method(intent)

    return ensure


@pytest.mark.parametrize("kind", ["dhcp", "router"])
def test_a_thing_that_breaks_its_maker_breaks_no_other(world: World, kind: str) -> None:
    """It sorts before and after the good one: neither order stops the pass."""
    things = []
    for n in range(4):
        network = world._make("network", {"name": f"bad{n}"}, "bob")
        subnet = {"network_id": network, "cidr": f"10.9.{n}.0/24", "ip_version": 4}
        subnet_id = world._make("subnet", subnet, "bob")
        router = world._make("router", {"name": "bad"}, "bob")
        url = f"/v2.0/routers/{router}/add_router_interface"
        world.call(world.neutron, "PUT", url, {"subnet_id": subnet_id}, "bob")
        things.append(network if kind == "dhcp" else router)
    for host in world.hosts.values():
        for bad in things:
            if kind == "dhcp":
                host.dhcp.ensure = poisoned(host.dhcp.ensure, bad)  # type: ignore[method-assign, assignment]
            else:
                host.routers.ensure = poisoned(host.routers.ensure, bad)  # type: ignore[method-assign, assignment]
    world.settle()
    check_others(world, "vm")
    assert {key for key, reason in world.failures().items() if "poison" in reason} == set(things)


RULES, PORTS = tables.security_group_rules, tables.ports
GARBAGE: dict[str, list[tuple[sa.Table, dict[str, Any]]]] = {
    "rules": [
        (RULES, {"remote_prefix": "not a prefix", "remote_group_id": None}), (RULES, {"ethertype": "IPv5"}),
        (RULES, {"protocol_number": 6, "port_min": 9, "port_max": 1}), (RULES, {"direction": "sideways"}),
    ],
    "subnets": [(tables.subnets, {"dns_servers": ["a\nb", 5]}), (tables.subnets, {"gateway_ip": "nowhere"})],
    "routers and networks": [
        (tables.routers, {"routes": [{"destination": "x", "nexthop": "y"}]}),
        (tables.networks, {"dns_domain": "a\nb c"}),
    ],
    "ports": [
        (PORTS, {"dhcp_options": [{"opt_name": "a\nb", "opt_value": "\n", "ip_version": 9}]}),
        (PORTS, {"dns_name": "x\ny"}), (PORTS, {"mac": "no mac"}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", GARBAGE)
def test_rows_that_no_api_lets_in(world: World, what: str) -> None:
    """Should one get in all the same (an older version, a repair by hand): it is its project's trouble only."""
    network = world._make("network", {"name": "bad"}, "bob")
    subnet = world._make("subnet", {"network_id": network, "cidr": "10.9.0.0/24", "ip_version": 4}, "bob")
    router = world._make("router", {"name": "bad"}, "bob")
    world.call(world.neutron, "PUT", f"/v2.0/routers/{router}/add_router_interface", {"subnet_id": subnet}, "bob")
    bobs = {"name": "bad", "imageRef": IMAGE, "flavorRef": "1", "networks": [{"uuid": network}]}
    world.call(world.nova, "POST", "/v2.1/servers", {"server": bobs}, "bob")
    world.settle()
    for table, values in GARBAGE[what]:
        with world.db.transaction() as tx:
            mine = table.c.device_owner == "compute:nova" if table is PORTS else sa.true()
            assert tx.write(sa.update(table).where(table.c.project_id == "p2", mine).values(**values))
        for loop in world.loops:
            loop.resync()
            loop.run_once()
    check_others(world, "vm")


def test_odd_definitions_that_the_api_lets_in(world: World) -> None:
    """OSSA-2014-019, OSSA-2015-001: IPv6 on routers, many of them; prefixes at the edges; foreign gateways."""
    made = 0
    odd: list[dict[str, Any]] = [
        *({"cidr": f"fd00:{n}::/64", "ip_version": 6, "ipv6_ra_mode": mode, "ipv6_address_mode": mode}
          for n, mode in enumerate(("slaac", "dhcpv6-stateful", "dhcpv6-stateless") * 4)),
        *({"cidr": f"10.{n}.0.0/{length}", "ip_version": 4, "enable_dhcp": False}
          for n, length in enumerate((30, 31, 32), 50)),
        {"cidr": "10.60.0.0/24", "ip_version": 4, "gateway_ip": "192.0.2.1"},
        {"cidr": "10.61.0.0/24", "ip_version": 4, "gateway_ip": None, "dns_nameservers": ["::1", "9.9.9.9"]},
        {"cidr": "fd01::/127", "ip_version": 6, "enable_dhcp": False},
        {"cidr": "fd02::/128", "ip_version": 6, "enable_dhcp": False},
        {"cidr": "fd03::/64", "ip_version": 6, "gateway_ip": "fe80::1"},
        {"cidr": "169.254.0.0/16", "ip_version": 4},
        {"cidr": "172.24.4.0/24", "ip_version": 4},
        {"cidr": "192.0.2.0/24", "ip_version": 4,
         "host_routes": [{"destination": "0.0.0.0/0", "nexthop": "192.0.2.9"},
                         {"destination": "169.254.169.254/32", "nexthop": "192.0.2.9"}]},
    ]  # fmt: skip
    for values in odd:
        network = world._make("network", {"name": "odd"}, "bob")
        body = {"subnet": {"network_id": network, **values}}
        headers = {"X-Auth-Token": "bob"}
        status, data, _ = world.neutron.call("POST", "/v2.0/subnets", body, headers)
        assert status in (201, 400), data
        if status != 201:
            continue
        made += 1
        router = {"router": {"name": "odd", "external_gateway_info": {"network_id": world.base["public"]}}}
        status, router_data, _ = world.neutron.call("POST", "/v2.0/routers", router, headers)
        if status == 201:
            url = f"/v2.0/routers/{router_data['router']['id']}/add_router_interface"
            assert world.neutron.call("PUT", url, {"subnet_id": data["subnet"]["id"]}, headers)[0] < 500
        port = {"port": {"network_id": network, "extra_dhcp_opts": [{"opt_name": "tag", "opt_value": "x:y"}]}}
        assert world.neutron.call("POST", "/v2.0/ports", port, headers)[0] < 500
    assert made > 15
    world.settle()
    check_others(world, "vm")
