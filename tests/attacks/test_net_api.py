"""Attacks on the network API: what was done to neutron before must not work here."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.neutron.conftest import Cloud


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


# ── NET-2: the firewall is not taken off a port that is not one's own (OSSA-2015-018) ─────────────────────────


def test_a_trusted_owner_cannot_be_claimed(cloud: Cloud) -> None:
    network, _ = cloud.network()
    owners = (
        "network:dhcp",
        "network:router_interface",
        "network:router_gateway",
        "network:floatingip",
        "network:x",
    )
    for owner in owners:
        body = {"port": {"network_id": network, "device_owner": owner}}
        assert cloud.refused("alice", "POST", "/ports", body)[0] == 403, owner
    port = cloud.create("alice", "port", network_id=network)["id"]
    for owner in owners:
        body = {"port": {"device_owner": owner}}
        assert cloud.refused("alice", "PUT", f"/ports/{port}", body)[0] == 403, owner


def test_on_a_shared_network_the_guard_stays_on(cloud: Cloud) -> None:
    network, subnet = cloud.network("admin", shared=True)
    port = cloud.create("bob", "port", network_id=network)["id"]
    for change in (
        {"port_security_enabled": False},
        {"allowed_address_pairs": [{"ip_address": "10.0.0.0/24"}]},
        {"mac_address": "fa:16:3e:00:00:01"},
        {"fixed_ips": [{"ip_address": "10.0.0.1"}]},
        {"device_owner": "network:dhcp"},
        {"binding:host_id": "c1"},
        {"binding:profile": {"x": "y"}},
    ):
        assert cloud.refused("bob", "PUT", f"/ports/{port}", {"port": change})[0] == 403, change
        body = {"port": {"network_id": network, **change}}
        assert cloud.refused("bob", "POST", "/ports", body)[0] == 403, change
        assert cloud.refused("alice", "PUT", f"/ports/{port}", {"port": change})[0] == 404, change
    assert cloud.create("bob", "port", network_id=network, fixed_ips=[{"subnet_id": subnet}])["fixed_ips"]


# ── NET-3: what is another project's stays out of reach (OSSA-2014-008) ──────────────────────────────────────


def test_another_projects_things(cloud: Cloud) -> None:
    public, _ = cloud.public_network()
    network, subnet = cloud.network()
    router = cloud.create("alice", "router", external_gateway_info={"network_id": public})["id"]
    cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    port = cloud.create("alice", "port", network_id=network)["id"]
    group = cloud.create("alice", "security_group", name="g")["id"]
    floating = cloud.create("alice", "floatingip", floating_network_id=public)["id"]
    scope = cloud.good("alice", "POST", "/address-scopes", {"address_scope": {"ip_version": 4}})["address_scope"][
        "id"
    ]
    pool = cloud.create("alice", "subnetpool", name="p", prefixes=["10.9.0.0/16"], address_scope_id=scope)["id"]
    mine, _ = cloud.network("bob", cidr="10.7.0.0/24")
    own_pool = cloud.create("bob", "subnetpool", name="p", prefixes=["10.7.0.0/16"])["id"]
    own = cloud.create("bob", "router")["id"]
    own_port = cloud.create("bob", "port", network_id=mine)["id"]
    own_floating = cloud.create("bob", "floatingip", floating_network_id=public)["id"]
    attacks: list[tuple[str, str, Any]] = [
        ("POST", "/ports", {"port": {"network_id": network}}),
        ("POST", "/ports", {"port": {"network_id": mine, "security_groups": [group]}}),
        ("POST", "/ports", {"port": {"network_id": public}}),
        ("POST", "/subnets", {"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24"}}),
        ("POST", "/subnets", {"subnet": {"network_id": public, "ip_version": 4, "cidr": "10.9.0.0/24"}}),
        ("POST", "/subnets", {"subnet": {"network_id": mine, "ip_version": 4, "subnetpool_id": pool}}),
        ("PUT", f"/subnetpools/{own_pool}", {"subnetpool": {"address_scope_id": scope}}),
        ("PUT", f"/subnetpools/{pool}", {"subnetpool": {"address_scope_id": None}}),
        ("PUT", f"/address-scopes/{scope}", {"address_scope": {"name": "mine"}}),
        ("PUT", f"/routers/{own}/add_router_interface", {"subnet_id": subnet}),
        ("PUT", f"/routers/{own}/add_router_interface", {"port_id": port}),
        ("PUT", f"/routers/{router}/add_router_interface", {"port_id": own_port}),
        ("PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": subnet}),
        ("PUT", f"/routers/{router}", {"router": {"admin_state_up": False}}),
        ("PUT", f"/floatingips/{floating}", {"floatingip": {"port_id": own_port}}),
        ("PUT", f"/floatingips/{own_floating}", {"floatingip": {"port_id": port}}),
        ("POST", "/floatingips", {"floatingip": {"floating_network_id": public, "port_id": port}}),
        ("PUT", f"/ports/{own_port}", {"port": {"security_groups": [group]}}),
        ("PUT", f"/networks/{public}", {"network": {"name": "mine"}}),
        ("DELETE", f"/networks/{public}", None),
        *(("DELETE", f"/{kind}/{key}", None) for kind, key in {
            "networks": network, "subnets": subnet, "ports": port, "routers": router, "floatingips": floating,
            "security-groups": group, "address-scopes": scope, "subnetpools": pool,
        }.items()),
    ]  # fmt: skip
    for method, url, body in attacks:
        status, _ = cloud.refused("bob", method, url, body)
        assert status in (403, 404), (method, url, body, status)


def test_a_port_with_a_foreign_device_id_is_nothing_to_that_device(cloud: Cloud) -> None:
    cloud.alive("net1", "neutron-l3-agent")
    _, subnet = cloud.network()
    router = cloud.create("alice", "router")["id"]
    cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    before = cloud.get("host:net1", "/hosts/net1/routers")
    theirs, _ = cloud.network("bob")
    for owner in ("", "compute:nova"):
        cloud.create("bob", "port", network_id=theirs, device_id=router, device_owner=owner)
    assert cloud.get("host:net1", "/hosts/net1/routers") == before
    cloud.good("alice", "PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": subnet})
    cloud.good("alice", "DELETE", f"/routers/{router}")


def test_a_shared_networks_gateway_is_not_for_everybody(cloud: Cloud) -> None:
    _, subnet = cloud.network("admin", shared=True)
    router = cloud.create("bob", "router")["id"]
    assert cloud.refused("bob", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})[0] == 403


# ── NET-4: rules that broke agents (OSSA-2014-014, -2019-001, -2019-002) ──────────────────────────────────────

RULES: list[dict[str, Any]] = [
    {"remote_ip_prefix": "10.0.0.0/33"},
    {"remote_ip_prefix": "10.0.0.0/24; reboot"},
    {"remote_ip_prefix": "10.0.0.0/24\n"},
    {"remote_ip_prefix": "fe80::1%eth0/64"},
    {"remote_ip_prefix": "fd00::/64"},
    {"remote_ip_prefix": "10.0.0.0/255.0.255.0"},
    {"remote_ip_prefix": "::ffff:10.0.0.1/96", "ethertype": "IPv4"},
    {"remote_ip_prefix": "10.0.0.0/8", "ethertype": "IPv6"},
    {"protocol": "esp", "port_range_min": 1, "port_range_max": 2},
    {"protocol": "vrrp", "port_range_min": 1},
    {"protocol": 50, "port_range_min": 0, "port_range_max": 0},
    {"protocol": None, "port_range_min": 1, "port_range_max": 2},
    {"protocol": "tcp", "port_range_min": 2, "port_range_max": 1},
    {"protocol": "tcp", "port_range_min": 0, "port_range_max": 65535},
    {"protocol": "tcp", "port_range_min": 1, "port_range_max": 65536},
    {"protocol": "tcp", "port_range_min": -1, "port_range_max": 1},
    {"protocol": "tcp", "port_range_min": 80},
    {"protocol": "tcp", "port_range_max": 80},
    {"protocol": "icmp", "port_range_min": 256},
    {"protocol": "icmp", "port_range_min": 8, "port_range_max": 256},
    {"protocol": "icmp", "port_range_max": 3},
    {"protocol": "icmpv6", "ethertype": "IPv4"},
    {"protocol": "ipv6-frag", "ethertype": "IPv4"},
    {"protocol": 256},
    {"protocol": -1},
    {"protocol": "256"},
    {"protocol": "tcp "},
    {"protocol": "tcp\nudp"},
    {"protocol": "٦"},
    {"direction": "sideways"},
    {"direction": "both"},
    {"ethertype": "IPv5"},
    {"remote_group_id": "x", "remote_ip_prefix": "10.0.0.0/8"},
    {"port_range_min": "ssh", "protocol": "tcp"},
    {"port_range_min": 1.5, "protocol": "tcp"},
]


@pytest.mark.parametrize("rule", RULES)
def test_rules_that_no_agent_could_carry_out(cloud: Cloud, rule: dict[str, Any]) -> None:
    group = cloud.create("alice", "security_group", name="g")["id"]
    body = {"security_group_rule": {"security_group_id": group, "direction": "ingress", **rule}}
    assert cloud.refused("alice", "POST", "/security-group-rules", body)[0] == 400


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20))
ODD = st.sampled_from(
    ["tcp", "icmp", "0.0.0.0/0", "::/0", "10.0.0.0/8", "IPv4", "IPv6", "ingress", "65536", "%s", "\n"]
)
LISTS = st.lists(SCALARS, max_size=2)
OBJECTS = st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
VALUES = st.one_of(SCALARS, ODD, st.integers(-2, 70000), LISTS, OBJECTS)
FIELDS = [
    "protocol",
    "port_range_min",
    "port_range_max",
    "remote_ip_prefix",
    "remote_group_id",
    "ethertype",
    "direction",
]
SHARED = Cloud()
GROUP = SHARED.create("alice", "security_group", name="fuzz")["id"]
SHARED.good("admin", "PUT", "/quotas/red", {"quota": {"security_group_rule": -1, "port": -1, "network": -1}})
NETWORK, SUBNET = SHARED.network()


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_any_rule_is_taken_or_refused(rule: dict[str, Any]) -> None:
    """Nothing is a 500, and what is taken is what an agent can read."""
    body = {"security_group_rule": {"security_group_id": GROUP, "direction": "ingress", **rule}}
    status, answer = SHARED.call("alice", "POST", "/security-group-rules", body)
    assert status in (201, 400, 404, 409), answer
    if status == 201:
        made = answer["security_group_rule"]
        assert made["port_range_min"] is None or made["protocol"] is not None
        assert made["ethertype"] in ("IPv4", "IPv6")
        SHARED.good("alice", "DELETE", f"/security-group-rules/{made['id']}")


# ── NET-6: nothing gets into a configuration that is more than a value (OSSA-2014-039, -2021-005) ─────────────

INJECTIONS = ["a\nb", "a\rb", "a\0b", "x\x1b[0m", "a\u2028b", "a\u0085b", "\t"]


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_second_line(cloud: Cloud, text: str) -> None:
    network, _ = cloud.network()
    port = cloud.create("alice", "port", network_id=network)["id"]
    changes: list[dict[str, Any]] = [
        {"extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": text}]},
        {"extra_dhcp_opts": [{"opt_name": text, "opt_value": "1"}]},
        {"extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": " "}]},
        {"extra_dhcp_opts": [{"opt_name": "a,tag:b", "opt_value": "1"}]},
        {"dns_name": text},
        {"fixed_ips": [{"ip_address": f"10.0.0.9{text}"}]},
        {"allowed_address_pairs": [{"ip_address": f"10.0.0.9{text}"}]},
        {"allowed_address_pairs": [{"ip_address": "10.0.0.9", "mac_address": f"fa:16:3e:00:00:01{text}"}]},
    ]
    for change in changes:
        assert cloud.refused("alice", "PUT", f"/ports/{port}", {"port": change})[0] == 400, change
        body = {"port": {"network_id": network, **change}}
        assert cloud.refused("alice", "POST", "/ports", body)[0] == 400, change
    assert cloud.refused("alice", "PUT", f"/networks/{network}", {"network": {"dns_domain": text}})[0] == 400
    changes = [
        {"dns_nameservers": [f"9.9.9.9{text}"]},
        {"host_routes": [{"destination": f"10.1.0.0/24{text}", "nexthop": "10.0.0.1"}]},
        {"host_routes": [{"destination": "10.1.0.0/24", "nexthop": f"10.0.0.1{text}"}]},
        {"gateway_ip": f"10.0.0.1{text}"},
        {"allocation_pools": [{"start": f"10.0.0.5{text}", "end": "10.0.0.9"}]},
    ]
    for change in changes:
        body = {"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.1.0.0/24", **change}}
        assert cloud.refused("alice", "POST", "/subnets", body)[0] == 400, change


NAMES = [
    "name",
    "fixed_ips",
    "mac_address",
    "extra_dhcp_opts",
    "allowed_address_pairs",
    "dns_name",
    "routes",
    "gateway_ip",
    "host_routes",
    "dns_nameservers",
    "cidr",
    "external_gateway_info",
    "binding:profile",
    "device_owner",
    "provider:segmentation_id",
    "port_id",
    "network_id",
    "floating_ip_address",
]
ITEMS = st.dictionaries(st.sampled_from(["ip_address", "opt_name", "opt_value", "start"]), VALUES)
COLLECTIONS = ["ports", "networks", "subnets", "routers", "floatingips", "security-groups"]
BASES: dict[str, dict[str, Any]] = {
    "ports": {"network_id": NETWORK},
    "subnets": {"network_id": NETWORK, "ip_version": 4, "cidr": "10.50.0.0/24"},
    "floatingips": {"floating_network_id": NETWORK},
}


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(COLLECTIONS),
    st.dictionaries(st.sampled_from(NAMES), st.one_of(VALUES, st.lists(ITEMS, max_size=3)), max_size=3),
    st.sampled_from(["alice", "admin"]),
)
def test_no_body_is_a_server_error(collection: str, values: dict[str, Any], who: str) -> None:
    one = collection[:-1].replace("-", "_")
    status, answer = SHARED.call(who, "POST", f"/{collection}", {one: {**BASES.get(collection, {}), **values}})
    assert status < 500, answer
    if status == 201:
        SHARED.good("admin", "DELETE", f"/{collection}/{answer[one]['id']}")


QUERIES = [
    "limit",
    "marker",
    "sort_key",
    "sort_dir",
    "fields",
    "fixed_ips",
    "tags",
    "status",
    "id",
    "mtu",
    "changed_since",
    "page_reverse",
    "sort",
    "admin_state_up",
    "not-tags",
    "alive",
]


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([*COLLECTIONS, "agents"]),
    st.sampled_from(QUERIES),
    st.one_of(st.text(max_size=12), st.integers().map(str)),
)
def test_no_query_is_a_server_error(collection: str, name: str, value: str) -> None:
    status, answer = SHARED.call("admin", "GET", f"/{collection}?{quote(name)}={quote(value)}")
    assert status < 500, answer


# ── NET-9: attributes of an administrator, set or reset by a user (OSSA-2014-031) ─────────────────────────────


def test_a_user_neither_sets_nor_resets_what_is_an_administrators(cloud: Cloud) -> None:
    network = cloud.create("admin", "network", tenant_id="red", router__external=True, shared=True)["id"]
    for name in ("shared", "router:external", "is_default"):
        for value in (False, True):
            body = {"network": {name: value}}
            assert cloud.refused("alice", "PUT", f"/networks/{network}", body)[0] == 403, name
    seen = cloud.get("admin", f"/networks/{network}")["network"]
    assert (seen["shared"], seen["router:external"]) == (True, True)
    public, _ = cloud.public_network()
    no_snat = {"network_id": public, "enable_snat": False}
    router = cloud.create("admin", "router", tenant_id="red", external_gateway_info=no_snat)["id"]
    snat = {"router": {"external_gateway_info": {"network_id": public, "enable_snat": True}}}
    assert cloud.refused("alice", "PUT", f"/routers/{router}", snat)[0] == 403
    for name in ("tenant_id", "project_id", "id", "status", "created_at", "revision_number", "mtu", "network_id"):
        assert cloud.refused("alice", "PUT", f"/networks/{network}", {"network": {name: "x"}})[0] == 400, name
    # a gateway that is set again without a word about SNAT keeps what the administrator has chosen
    again = cloud.update("alice", "router", router, external_gateway_info={"network_id": public})
    assert again["external_gateway_info"]["enable_snat"] is False
