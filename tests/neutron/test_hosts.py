"""The story of agents: the documents they read, the reports they write, the hints between."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.neutron import hosts
from cumulet.neutron.tables import dhcp_bindings, router_bindings
from tests.neutron.conftest import Cloud

L2, DHCP, L3 = "neutron-openvswitch-agent", "neutron-dhcp-agent", "neutron-l3-agent"


def read(cloud: Cloud, host: str, what: str) -> Any:
    return cloud.get(f"host:{host}", f"/hosts/{host}/{what}")


def report(cloud: Cloud, host: str, what: str, seen: Any) -> None:
    cloud.good(f"host:{host}", "POST", f"/hosts/{host}/{what}", seen)


def bound_port(cloud: Cloud, network: str, host: str, **values: Any) -> Any:
    return cloud.create("admin", "port", network_id=network, tenant_id="red", binding__host_id=host, **values)


def test_a_host_speaks_for_itself_only(cloud: Cloud) -> None:
    assert read(cloud, "c1", "ports") == {"ports": [], "segments": {}, "rules": {}, "members": {}, "cloud": ""}
    for path in ("ports", "dhcp", "routers"):
        assert cloud.call("host:c1", "GET", f"/hosts/c2/{path}")[0] == 403
        assert cloud.call("host:c1", "POST", f"/hosts/c2/{path}", {})[0] == 403
        assert cloud.call("admin", "GET", f"/hosts/c2/{path}")[0] == 401


def test_wiring(cloud: Cloud) -> None:
    cloud.alive("c1", L2, tunnel="192.0.2.1")
    cloud.alive("c2", L2, tunnel="192.0.2.2")
    cloud.alive("c3", L2)
    network, _ = cloud.network()
    group = cloud.create("alice", "security_group", name="web")["id"]
    rule = {"security_group_id": group, "direction": "ingress", "protocol": "tcp"}
    cloud.create("alice", "security_group_rule", **rule, port_range_min=80, port_range_max=81)
    pair = [{"ip_address": "10.0.0.200"}]
    port = bound_port(cloud, network, "c1", security_groups=[group], allowed_address_pairs=pair)
    bound_port(cloud, network, "c2")
    bound_port(cloud, network, "c3")
    intent = read(cloud, "c1", "ports")
    wire = intent["ports"][0]
    assert wire["id"] == port["id"]
    assert (wire["mac"], wire["ips"]) == (port["mac_address"], ["10.0.0.2"])
    assert (wire["generation"], wire["wired_generation"], wire["admin_up"]) == (1, 0, True)
    assert wire["allowed_pairs"] == [[port["mac_address"], "10.0.0.200/32"]]
    assert wire["security_groups"] == [group]
    segment = intent["segments"][network]
    assert (segment["kind"], segment["mtu"], segment["peers"]) == ("vxlan", 1450, ["192.0.2.2"])
    assert segment["segmentation_id"] > 0
    told = {
        (r["direction"], r["ip_version"], r["protocol"], r["port_min"], r["port_max"])
        for r in intent["rules"][group]
    }
    assert told == {
        ("egress", 4, None, None, None),
        ("egress", 6, None, None, None),
        ("ingress", 4, 6, 80, 81),
    }
    assert intent["members"] == {}
    cloud.hinted()
    report(cloud, "c1", "ports", {"wired": {port["id"]: 1}})
    assert cloud.get("alice", f"/ports/{port['id']}")["port"]["status"] == "ACTIVE"
    assert read(cloud, "c1", "ports")["ports"][0]["wired_generation"] == 1
    # others cannot report for it, nor can a generation come that does not exist
    report(cloud, "c2", "ports", {"wired": {port["id"]: 0}})
    report(cloud, "c1", "ports", {"wired": {port["id"]: 7, "nonsense": 1}})
    assert cloud.get("alice", f"/ports/{port['id']}")["port"]["status"] == "ACTIVE"
    report(cloud, "c1", "ports", {"wired": {port["id"]: 0}})
    assert cloud.get("alice", f"/ports/{port['id']}")["port"]["status"] == "DOWN"
    # a rebinding is a new generation: the old report does not count
    report(cloud, "c1", "ports", {"wired": {port["id"]: 1}})
    moved = cloud.update("admin", "port", port["id"], binding__host_id="c2")
    assert moved["status"] == "BUILD"
    assert {("neutron.ports.c1", port["id"]), ("neutron.ports.c2", port["id"])} <= cloud.hinted()
    assert read(cloud, "c1", "ports")["ports"] == []
    assert [p["generation"] for p in read(cloud, "c2", "ports")["ports"] if p["id"] == port["id"]] == [2]
    cloud.good("alice", "DELETE", f"/ports/{port['id']}")
    assert ("neutron.ports.c2", port["id"]) in cloud.hinted()
    assert len(read(cloud, "c2", "ports")["ports"]) == 1


def test_an_unchanged_document_is_not_sent_again(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = cloud.network()
    bound_port(cloud, network, "c1")
    from cumulet.core.secrets import host_token

    headers = {"X-Cumulet-Host": "c1", "X-Cumulet-Host-Token": host_token("hosts", "c1")}
    status, _, answered = cloud.app.call("GET", "/hosts/c1/ports", None, headers)
    assert status == 200
    again = cloud.app.call("GET", "/hosts/c1/ports", None, {**headers, "If-None-Match": answered["ETag"]})
    assert again[0] == 304
    monkeypatch.setattr(hosts, "wire_intent", None)
    again = cloud.app.call("GET", "/hosts/c1/ports", None, {**headers, "If-None-Match": answered["ETag"]})
    assert again[0] == 304, "it was not even made"
    monkeypatch.undo()
    bound_port(cloud, network, "c2")
    changed = cloud.app.call("GET", "/hosts/c1/ports", None, {**headers, "If-None-Match": answered["ETag"]})
    assert (changed[0], changed[2]["ETag"] != answered["ETag"]) == (200, True)
    fresh = cloud.app.call("GET", "/hosts/c1/ports", None, headers)
    assert (fresh[0], fresh[1], fresh[2]["ETag"]) == (200, changed[1], changed[2]["ETag"])


def test_members_of_a_group_are_known_wherever_they_are(cloud: Cloud) -> None:
    network, _ = cloud.network()
    six = {"ip_version": 6, "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}
    cloud.create("alice", "subnet", network_id=network, cidr="fd00::/64", **six)
    group = cloud.get("alice", "/security-groups?name=default")["security_groups"][0]["id"]
    port = bound_port(cloud, network, "c1", mac_address="fa:16:3e:00:00:01")
    cloud.hinted()
    # somebody joins the group, bound or not: the host that lets the group in must know
    pairs = [{"ip_address": "10.3.0.0/16"}, {"ip_address": "10.0.0.77"}]
    other = cloud.create(
        "admin",
        "port",
        network_id=network,
        tenant_id="red",
        mac_address="fa:16:3e:00:00:02",
        allowed_address_pairs=pairs,
    )
    assert ("neutron.ports.c1", "*") in cloud.hinted()
    members = read(cloud, "c1", "ports")["members"][group]
    assert members == sorted(
        ["10.0.0.2", "10.0.0.3", "fd00::f816:3eff:fe00:1", "fd00::f816:3eff:fe00:2", "10.3.0.0/16", "10.0.0.77"]
    )
    cloud.update("alice", "port", other["id"], fixed_ips=[{"ip_address": "10.0.0.50"}])
    assert ("neutron.ports.c1", "*") in cloud.hinted()
    assert "10.0.0.50" in read(cloud, "c1", "ports")["members"][group]
    cloud.good("alice", "DELETE", f"/ports/{other['id']}")
    assert ("neutron.ports.c1", "*") in cloud.hinted()
    assert read(cloud, "c1", "ports")["members"][group] == ["10.0.0.2", "fd00::f816:3eff:fe00:1"]
    rule = {"security_group_id": group, "direction": "ingress", "protocol": "udp"}
    made = cloud.create("alice", "security_group_rule", **rule)["id"]
    assert ("neutron.ports.c1", "*") in cloud.hinted()
    cloud.good("alice", "DELETE", f"/security-group-rules/{made}")
    assert ("neutron.ports.c1", "*") in cloud.hinted()
    # leaving the group
    cloud.update("alice", "port", port["id"], security_groups=[])
    assert ("neutron.ports.c1", port["id"]) in cloud.hinted()
    intent = read(cloud, "c1", "ports")
    assert (intent["rules"], intent["members"]) == ({}, {})


def test_a_group_without_rules_or_members_lets_nobody_in(cloud: Cloud) -> None:
    network, _ = cloud.network()
    one = cloud.create("alice", "security_group", name="one")
    two = cloud.create("alice", "security_group", name="two")["id"]
    for rule in one["security_group_rules"]:
        cloud.good("alice", "DELETE", f"/security-group-rules/{rule['id']}")
    bound_port(cloud, network, "c1", security_groups=[one["id"]])
    assert read(cloud, "c1", "ports")["rules"] == {one["id"]: []}
    cloud.create(
        "alice", "security_group_rule", security_group_id=one["id"], direction="ingress", remote_group_id=two
    )
    intent = read(cloud, "c1", "ports")
    assert intent["rules"][one["id"]][0]["remote_group"] == two
    assert intent["members"] == {two: []}


def test_a_new_host_makes_its_peers_look(cloud: Cloud) -> None:
    network, _ = cloud.network()
    bound_port(cloud, network, "c1")
    cloud.hinted()
    port = bound_port(cloud, network, "c2")
    assert cloud.hinted() >= {("neutron.ports.c1", "*"), ("neutron.ports.c2", port["id"])}
    port = bound_port(cloud, network, "c2")
    assert {topic for topic, key in cloud.hinted() if key == port["id"]} == {"neutron.ports.c2"}


def test_dhcp(cloud: Cloud) -> None:
    cloud.alive("net1", DHCP)
    network, subnet = cloud.network(dns_domain="example.org.")
    assert ("neutron.dhcp.net1", network) in cloud.hinted()
    intent = read(cloud, "net1", "dhcp")[network]
    assert (intent["absent"], intent["generation"], intent["seen_generation"]) == (False, 1, 0)
    assert intent["ips"] == ["10.0.0.2/24"]
    assert intent["domain"] == "example.org"
    assert intent["mtu"] == 1450
    assert intent["subnets"][0]["cidr"] == "10.0.0.0/24"
    assert intent["leases"] == []
    port = cloud.get("alice", "/ports?device_owner=network:dhcp")["ports"][0]
    assert (port["id"], port["mac_address"]) == (intent["port_id"], intent["mac"])
    assert [p["id"] for p in read(cloud, "net1", "ports")["ports"]] == [port["id"]]
    assert cloud.refused("alice", "DELETE", f"/ports/{port['id']}") == (409, "ServicePortInUse")
    options = [{"opt_name": "mtu", "opt_value": "1400"}]
    guest = cloud.create("alice", "port", network_id=network, dns_name="web", extra_dhcp_opts=options)
    assert ("neutron.dhcp.net1", network) in cloud.hinted()
    intent = read(cloud, "net1", "dhcp")[network]
    assert intent["generation"] == 2
    lease = {"port_id": guest["id"], "mac": guest["mac_address"], "ips": ["10.0.0.3"], "hostname": "web"}
    assert intent["leases"] == [{**lease, "options": [["mtu", "1400", 4]]}]
    changes: list[Callable[[], Any]] = [
        lambda: cloud.update("alice", "port", guest["id"], dns_name="www"),
        lambda: cloud.update("alice", "subnet", subnet, dns_nameservers=["9.9.9.9"]),
        lambda: cloud.update("alice", "network", network, dns_domain="example.net."),
        lambda: cloud.good("alice", "DELETE", f"/ports/{guest['id']}"),
    ]
    for number, change in enumerate(changes):
        change()
        assert read(cloud, "net1", "dhcp")[network]["generation"] == number + 3
        assert ("neutron.dhcp.net1", network) in cloud.hinted()
    report(cloud, "net1", "dhcp", {network: {"generation": 6, "running": True}})
    assert read(cloud, "net1", "dhcp")[network]["seen_generation"] == 6


def test_dhcp_comes_and_goes_with_its_subnets(cloud: Cloud) -> None:
    cloud.alive("net1", DHCP)
    network, subnet = cloud.network()
    second = cloud.create("alice", "subnet", network_id=network, ip_version=4, cidr="10.1.0.0/24")["id"]
    assert read(cloud, "net1", "dhcp")[network]["ips"] == ["10.0.0.2/24", "10.1.0.2/24"]
    cloud.update("alice", "subnet", subnet, enable_dhcp=False)
    intent = read(cloud, "net1", "dhcp")[network]
    assert intent["ips"] == ["10.1.0.2/24"]
    cloud.good("alice", "DELETE", f"/subnets/{second}")
    gone = read(cloud, "net1", "dhcp")[network]
    assert (gone["absent"], gone["port_id"]) == (True, intent["port_id"])
    assert cloud.get("alice", "/ports")["ports"] == []
    # wanted again before the agent came to it
    cloud.update("alice", "subnet", subnet, enable_dhcp=True)
    again = read(cloud, "net1", "dhcp")[network]
    assert again["absent"] is False
    assert again["generation"] > gone["generation"]
    report(cloud, "net1", "dhcp", {network: {"generation": gone["generation"], "running": False}})
    assert network in read(cloud, "net1", "dhcp")


def test_a_deleted_network_is_a_tombstone_until_the_agent_has_obeyed(cloud: Cloud) -> None:
    cloud.alive("net1", DHCP)
    network, _ = cloud.network()
    cloud.good("alice", "DELETE", f"/networks/{network}")
    gone = read(cloud, "net1", "dhcp")[network]
    assert gone["absent"] is True
    assert ("neutron.dhcp.net1", network) in cloud.hinted()
    report(cloud, "net1", "dhcp", {network: {"generation": gone["generation"], "running": True}})
    assert network in read(cloud, "net1", "dhcp")
    report(cloud, "net1", "dhcp", {network: {"generation": gone["generation"], "running": False}})
    assert read(cloud, "net1", "dhcp") == {}


def test_routers(cloud: Cloud) -> None:
    cloud.alive("net1", L3)
    public, _ = cloud.public_network()
    network, subnet = cloud.network()
    router = cloud.create("alice", "router")["id"]
    assert ("neutron.routers.net1", router) in cloud.hinted()
    bare = read(cloud, "net1", "routers")[router]
    assert (bare["external"], bare["interfaces"], bare["floating"], bare["absent"]) == (None, [], [], False)
    cloud.update("alice", "router", router, external_gateway_info={"network_id": public})
    cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    port = cloud.create("alice", "port", network_id=network)["id"]
    floating = cloud.create("alice", "floatingip", floating_network_id=public, port_id=port)
    route = {"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}
    cloud.update("alice", "router", router, routes=[route], admin_state_up=False)
    intent = read(cloud, "net1", "routers")[router]
    assert intent["generation"] > bare["generation"]
    assert intent["external"]["ips"] == ["172.24.4.2/24"]
    assert intent["external"]["gateways"] == ["172.24.4.1"]
    assert intent["external"]["mtu"] == 1500
    assert (intent["snat"], intent["admin_up"]) == (True, False)
    assert [(p["ips"], p["gateways"], p["mtu"]) for p in intent["interfaces"]] == [(["10.0.0.1/24"], [], 1450)]
    told = {"id": floating["id"], "floating": floating["floating_ip_address"], "fixed": "10.0.0.2"}
    assert intent["floating"] == [told]
    assert intent["routes"] == [["10.9.0.0/16", "10.0.0.9"]]
    owners = {p["device_owner"] for p in read(cloud, "net1", "ports")["ports"]}
    assert owners == {"network:router_gateway", "network:router_interface"}
    fault = {"generation": intent["generation"], "running": False, "fault": "no bridge"}
    report(cloud, "net1", "routers", {router: fault})
    assert cloud.get("alice", f"/routers/{router}")["router"]["status"] == "ERROR"
    assert [r["id"] for r in cloud.get("alice", "/routers?status=ERROR")["routers"]] == [router]
    report(cloud, "net1", "routers", {router: {**fault, "fault": "", "running": True}})
    assert cloud.get("alice", f"/routers/{router}")["router"]["status"] == "ACTIVE"
    cloud.good("alice", "DELETE", f"/floatingips/{floating['id']}")
    cloud.update("alice", "router", router, routes=[])
    cloud.good("alice", "PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": subnet})
    cloud.good("alice", "DELETE", f"/routers/{router}")
    gone = read(cloud, "net1", "routers")[router]
    assert gone["absent"] is True
    report(cloud, "net1", "routers", {router: {"generation": gone["generation"], "running": False}})
    assert read(cloud, "net1", "routers") == {}


def test_a_router_hears_of_address_scopes(cloud: Cloud) -> None:
    cloud.alive("net1", L3)
    wish = {"address_scope": {"name": "s", "ip_version": 4}}
    scope = cloud.good("alice", "POST", "/address-scopes", wish)["address_scope"]["id"]
    pool = cloud.create(
        "alice", "subnetpool", name="p", prefixes=["10.8.0.0/16"], address_scope_id=scope, default_prefixlen=24
    )["id"]
    network = cloud.create("alice", "network")["id"]
    subnet = cloud.create("alice", "subnet", network_id=network, subnetpool_id=pool)["id"]
    router = cloud.create("alice", "router")["id"]
    cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})

    def told() -> tuple[int, list[tuple[str, str]]]:
        intent = read(cloud, "net1", "routers")[router]
        return intent["generation"], [(port["scope_v4"], port["scope_v6"]) for port in intent["interfaces"]]

    before, scopes = told()
    assert scopes == [(scope, "")]
    cloud.update("alice", "subnetpool", pool, name="q")
    assert told() == (before, scopes)
    cloud.hinted()
    cloud.update("alice", "subnetpool", pool, address_scope_id=None)
    assert ("neutron.routers.net1", router) in cloud.hinted()
    assert told() == (before + 1, [("", "")])


def test_bindings_are_given_when_an_agent_comes(cloud: Cloud) -> None:
    network, subnet = cloud.network()
    router = cloud.create("alice", "router")["id"]
    cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    assert {("neutron.bindings", network), ("neutron.bindings", router)} <= cloud.hinted()
    cloud.loop.run_once()
    assert set(cloud.loop.failures) == {network, router}
    assert "no neutron-dhcp-agent is alive" in cloud.loop.failures[network].reason
    cloud.alive("net1", DHCP, L3)
    cloud.loop.wake(network)
    cloud.loop.wake(router)
    cloud.loop.run_once()
    assert cloud.loop.failures == {}
    assert set(read(cloud, "net1", "dhcp")) == {network}
    assert set(read(cloud, "net1", "routers")) == {router}
    assert len(read(cloud, "net1", "ports")["ports"]) == 2
    commits = len(cloud.hinted())
    cloud.loop.resync()
    cloud.loop.run_once()
    assert commits > 0
    assert cloud.hinted() == set()


def test_bindings_go_to_the_agent_with_the_least(cloud: Cloud) -> None:
    cloud.alive("net1", DHCP, L3)
    cloud.alive("net2", DHCP, L3)
    for number in range(4):
        cloud.network(cidr=f"10.{number}.0.0/24")
        cloud.create("alice", "router")
    for table in (dhcp_bindings, router_bindings):
        with cloud.db.read() as tx:
            hosts = [row.host for row in tx.all(sa.select(table.c.host).order_by(table.c.host))]
        assert hosts == ["net1", "net1", "net2", "net2"]
    agents = cloud.get("admin", "/agents?agent_type=DHCP%20agent")["agents"]
    assert cloud.get("admin", "/agents?agent_type=DHCP%20Agent")["agents"] == agents
    net1 = next(agent for agent in agents if agent["host"] == "net1")
    cloud.update("admin", "agent", net1["id"], admin_state_up=False)
    cloud.network(cidr="10.9.0.0/24")
    assert len(read(cloud, "net2", "dhcp")) == 3


def test_whose_port_asks_for_metadata(cloud: Cloud) -> None:
    from cumulet.neutron.model import PortWish
    from cumulet.neutron.public import create_server_ports
    from tests.neutron.conftest import PEOPLE

    cloud.alive("net1", DHCP, L3)
    network, subnet = cloud.network()
    router = cloud.create("alice", "router")["id"]
    cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    with cloud.db.transaction() as tx:
        ports = create_server_ports(tx, PEOPLE["alice"], "vm", "vm", [PortWish(network_id=network)], [])
    ip = ports[0].addresses[0].ip
    owner = {"device_id": "vm", "project_id": "red"}
    assert read(cloud, "net1", f"owner?network={network}&ip={ip}") == owner
    assert read(cloud, "net1", f"owner?router={router}&ip={ip}") == owner
    nobody = {"device_id": "", "project_id": ""}
    assert read(cloud, "net1", f"owner?network={network}&ip=10.0.0.99") == nobody
    assert read(cloud, "net1", f"owner?network=other&ip={ip}") == nobody
    # a host that serves neither is told nothing
    assert read(cloud, "c9", f"owner?network={network}&ip={ip}") == nobody
    # nor may a port's owner pretend to be a server
    fake = cloud.create("alice", "port", network_id=network, device_id="vm", device_owner="compute:nova")
    ip = fake["fixed_ips"][0]["ip_address"]
    assert read(cloud, "net1", f"owner?network={network}&ip={ip}") == nobody


def test_documents_take_as_many_queries_for_many_as_for_one(cloud: Cloud) -> None:
    cloud.alive("net1", DHCP, L3, L2)
    counted: list[str] = []
    sa.event.listen(cloud.db.engine, "before_cursor_execute", lambda *a: counted.append(a[2]))
    public, _ = cloud.public_network()

    def grow(number: int) -> None:
        network, subnet = cloud.network(cidr=f"10.{number}.0.0/24")
        router = cloud.create("alice", "router", external_gateway_info={"network_id": public})["id"]
        cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
        for _ in range(3):
            bound_port(cloud, network, "net1")

    def queries() -> list[int]:
        found = []
        for what in ("ports", "dhcp", "routers"):
            counted.clear()
            read(cloud, "net1", what)
            found.append(len(counted))
        return found

    grow(0)
    few = queries()
    for number in range(1, 6):
        grow(number)
    assert queries() == few
    for url in ("/ports", "/networks", "/subnets", "/routers", "/security-groups"):
        counted.clear()
        cloud.get("admin", url)
        assert len(counted) < 12, url
