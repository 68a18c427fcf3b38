"""What is announced is there: each alias has a proof, and an alias without one is a failure."""

from collections.abc import Callable
from typing import Any

import pytest

from cumulet.neutron.bindings import DHCP_AGENT, L3_AGENT
from cumulet.neutron.extensions import EXTENSIONS
from tests.neutron.conftest import Cloud


def has(kind: str, *names: str) -> Callable[[Cloud], None]:
    """Things of this kind show these attributes to an administrator."""

    def proof(cloud: Cloud) -> None:
        assert set(names) <= thing(cloud, kind).keys()

    return proof


def keeps(kind: str, **values: Any) -> Callable[[Cloud], None]:
    """Things of this kind can be made with these values, and have them."""

    def proof(cloud: Cloud) -> None:
        made = thing(cloud, kind, **values)
        assert {name: made[name.replace("__", ":")] for name in values} == values

    return proof


def lists(url: str) -> Callable[[Cloud], None]:
    def proof(cloud: Cloud) -> None:
        cloud.alive("n1", DHCP_AGENT, L3_AGENT)
        (found,) = cloud.get("admin", url).values()
        assert found

    return proof


def thing(cloud: Cloud, kind: str, **values: Any) -> Any:
    network, subnet = cloud.network("admin")
    if kind == "floatingip":
        values["floating_network_id"] = cloud.public_network()[0]
    if kind in ("port", "subnet"):
        values["network_id"] = network
    if kind == "subnet":
        values |= {"ip_version": 4, "cidr": "10.77.0.0/24"}
    if kind == "subnetpool":
        values = {"name": "p", "prefixes": ["10.8.0.0/16"]} | values
    assert subnet
    return cloud.create("admin", kind, **values)


def all_have(*names: str) -> Callable[[Cloud], None]:
    def proof(cloud: Cloud) -> None:
        for kind in ("network", "subnet", "subnetpool", "port", "router", "security_group"):
            assert set(names) <= thing(Cloud(), kind).keys(), kind

    return proof


def queries(url: str) -> Callable[[Cloud], None]:
    """The query means something: of two networks it finds one."""

    def proof(cloud: Cloud) -> None:
        for name in ("", "b"):
            cloud.create("alice", "network", name=name)
        assert len(cloud.get("alice", url)["networks"]) == 1

    return proof


def served(cloud: Cloud) -> None:
    cloud.alive("n1", DHCP_AGENT, L3_AGENT)
    network, _ = cloud.network()
    router = cloud.create("alice", "router")["id"]
    for url in (f"/networks/{network}/dhcp-agents", f"/routers/{router}/l3-agents"):
        assert [agent["host"] for agent in cloud.get("admin", url)["agents"]] == ["n1"]


def routes(cloud: Cloud) -> None:
    """Set, added to and taken from, and told to the agent."""
    cloud.alive("n1", L3_AGENT)
    _, subnet = cloud.network()
    router = cloud.create("alice", "router")["id"]
    cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    one, other = ({"destination": f"10.{n}.0.0/16", "nexthop": "10.0.0.9"} for n in (8, 9))
    cloud.update("alice", "router", router, routes=[one])
    cloud.good("alice", "PUT", f"/routers/{router}/add_extraroutes", {"router": {"routes": [other]}})
    told = cloud.get("host:n1", "/hosts/n1/routers")[router]["routes"]
    assert sorted(told) == [["10.8.0.0/16", "10.0.0.9"], ["10.9.0.0/16", "10.0.0.9"]]
    cloud.good("alice", "PUT", f"/routers/{router}/remove_extraroutes", {"router": {"routes": [one]}})
    assert cloud.get("alice", f"/routers/{router}")["router"]["routes"] == [other]


def gateway_mode(cloud: Cloud) -> None:
    """Without SNAT, and with an address in each of two subnets of the outside."""
    cloud.alive("n1", L3_AGENT)
    network, first = cloud.public_network()
    second = cloud.create(
        "admin", "subnet", network_id=network, ip_version=4, cidr="172.25.4.0/24", enable_dhcp=False
    )["id"]
    wanted = [{"subnet_id": first, "ip_address": "172.24.4.9"}, {"subnet_id": second, "ip_address": "172.25.4.9"}]
    info = {"network_id": network, "enable_snat": False, "external_fixed_ips": wanted}
    made = cloud.create("admin", "router", external_gateway_info=info)
    assert made["external_gateway_info"] == info
    told = cloud.get("host:n1", "/hosts/n1/routers")[made["id"]]
    assert (told["snat"], told["external"]["ips"]) == (False, ["172.24.4.9/24", "172.25.4.9/24"])
    assert told["external"]["gateways"] == ["172.24.4.1", "172.25.4.1"]


def dhcp_options(cloud: Cloud) -> None:
    cloud.alive("n1", DHCP_AGENT)
    network, _ = cloud.network()
    options = [{"opt_name": "bootfile-name", "opt_value": "x.0", "ip_version": 4}]
    assert cloud.create("alice", "port", network_id=network, extra_dhcp_opts=options)["extra_dhcp_opts"] == options
    (lease,) = cloud.get("host:n1", "/hosts/n1/dhcp")[network]["leases"]
    assert lease["options"] == [["bootfile-name", "x.0", 4]]


def pairs(cloud: Cloud) -> None:
    """The agent of the port's host is told."""
    network, _ = cloud.network("admin")
    wanted = [{"ip_address": "10.0.0.99", "mac_address": "fa:16:3e:00:00:99"}]
    cloud.create("admin", "port", network_id=network, allowed_address_pairs=wanted, binding__host_id="n1")
    (port,) = cloud.get("host:n1", "/hosts/n1/ports")["ports"]
    assert ["fa:16:3e:00:00:99", "10.0.0.99/32"] in port["allowed_pairs"]


def check_limit(cloud: Cloud) -> None:
    cloud.network()
    for bound in ({"network": 0, "check_limit": True}, {"subnet": 0, "check_limit": True}):
        assert cloud.refused("admin", "PUT", "/quotas/red", {"quota": bound})[0] in (400, 409)
    forced = {"quota": {"network": 0, "force": True}}
    assert cloud.good("admin", "PUT", "/quotas/red", forced)["quota"]["network"] == 0


def check_limit_always(cloud: Cloud) -> None:
    cloud.network()
    assert cloud.refused("admin", "PUT", "/quotas/red", {"quota": {"network": 0}})[0] == 400
    assert cloud.good("admin", "PUT", "/quotas/red", {"quota": {"network": -1}})["quota"]["network"] == -1


def normalized(cloud: Cloud) -> None:
    group = cloud.create("alice", "security_group", name="g")["id"]
    rule = cloud.create(
        "alice", "security_group_rule", security_group_id=group, direction="ingress", remote_ip_prefix="10.2.3.4/8"
    )
    assert (rule["remote_ip_prefix"], rule["normalized_cidr"]) == ("10.2.3.4/8", "10.0.0.0/8")


def substrings(cloud: Cloud) -> None:
    network, _ = cloud.network()
    cloud.create("alice", "port", network_id=network)
    for part, count in (("10.0.", 1), ("10.1.", 0)):
        assert len(cloud.get("alice", f"/ports?fixed_ips=ip_address_substr%3D{part}")["ports"]) == count


def sorted_lists(cloud: Cloud) -> None:
    for name in ("b", "c", "a"):
        cloud.create("alice", "network", name=name)
    for direction, wanted in (("asc", "abc"), ("desc", "cba")):
        found = cloud.get("alice", f"/networks?sort_key=name&sort_dir={direction}")["networks"]
        assert "".join(network["name"] for network in found) == wanted


def availability(cloud: Cloud) -> None:
    network, _ = cloud.network()
    cloud.create("alice", "port", network_id=network)
    (found,) = cloud.get("admin", "/network-ip-availabilities")["network_ip_availabilities"]
    assert (found["network_id"], found["total_ips"], found["used_ips"]) == (network, 253, 1)


def quota(cloud: Cloud) -> None:
    cloud.network()
    cloud.good("admin", "PUT", "/quotas/red", {"quota": {"network": 1}})
    assert cloud.get("alice", "/quotas/red")["quota"]["network"] == 1
    assert cloud.get("alice", "/quotas/red/default")["quota"]["network"] == 100
    details = cloud.get("alice", "/quotas/red/details")["quota"]["network"]
    assert details == {"limit": 1, "used": 1, "reserved": 0}
    assert cloud.refused("alice", "POST", "/networks", {"network": {}}) == (409, "OverQuota")


def templates(cloud: Cloud) -> None:
    wish = {"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
    cloud.good("admin", "POST", "/default-security-group-rules", {"default_security_group_rule": wish})
    made = cloud.create("alice", "security_group", name="g")["security_group_rules"]
    assert [rule["port_range_min"] for rule in made] == [None, None, 22]


def revisions(cloud: Cloud) -> None:
    network = cloud.create("alice", "network")["id"]
    headers = {"X-Auth-Token": "alice", "If-Match": "revision_number=9"}
    assert cloud.app.call("DELETE", f"/v2.0/networks/{network}", None, headers)[0] == 412


def shared(kind: str, collection: str) -> Callable[[Cloud], None]:
    """What is shared with one project is seen by it."""

    def proof(cloud: Cloud) -> None:
        if kind == "address_scope":
            body = {"address_scope": {"name": "s", "ip_version": 4}}
            made = cloud.good("admin", "POST", "/address-scopes", body)["address_scope"]
        else:
            made = thing(cloud, kind)
        url = f"/{collection}/{made['id']}"
        assert cloud.refused("bob", "GET", url)[0] == 404
        wish = {"object_type": kind, "object_id": made["id"], "action": "access_as_shared", "target_tenant": "blue"}
        cloud.good("admin", "POST", "/rbac-policies", {"rbac_policy": wish})
        assert cloud.get("bob", url)[kind]["shared"] is True

    return proof


def pools(cloud: Cloud) -> None:
    pool = cloud.create(
        "admin", "subnetpool", name="p", prefixes=["10.8.0.0/16"], is_default=True, default_prefixlen=24
    )["id"]
    network = cloud.create("admin", "network")["id"]
    for number, wish in enumerate(({"subnetpool_id": pool}, {"use_default_subnetpool": True})):
        made = cloud.create("admin", "subnet", network_id=network, ip_version=4, **wish)
        assert (made["cidr"], made["subnetpool_id"]) == (f"10.8.{number}.0/24", pool)


def tags(kind: str) -> Callable[[Cloud], None]:
    return keeps(kind, tags=["a", "b"])


def scopes(cloud: Cloud) -> None:
    """What routers make of it: ``test_hosts`` and the unit tests of their plan."""
    body = {"address_scope": {"name": "s", "ip_version": 4}}
    scope = cloud.good("alice", "POST", "/address-scopes", body)["address_scope"]["id"]
    pool = cloud.create("alice", "subnetpool", name="p", prefixes=["10.8.0.0/24"], address_scope_id=scope)["id"]
    network = cloud.create("alice", "network")["id"]
    cloud.create("alice", "subnet", network_id=network, subnetpool_id=pool, prefixlen=26)
    assert cloud.get("alice", f"/networks/{network}")["network"]["ipv4_address_scope"] == scope


PROOFS: dict[str, Callable[[Cloud], None]] = {
    "address-scope": scopes,
    "agent": lists("/agents"),
    "allowed-address-pairs": pairs,
    "availability_zone": lists("/availability_zones"),
    "binding": has("port", "binding:host_id", "binding:vif_type", "binding:vnic_type", "binding:profile"),
    "default-subnetpools": pools,
    "dhcp_agent_scheduler": served,
    "dns-integration": keeps("port", dns_name="web"),
    "empty-string-filtering": queries("/networks?name="),
    "ext-gw-mode": gateway_mode,
    "external-net": has("network", "router:external"),
    "extra_dhcp_opt": dhcp_options,
    "extraroute": routes,
    "extraroute-atomic": routes,
    "fip-port-details": has("floatingip", "port_details"),
    "ip-substring-filtering": substrings,
    "l3_agent_scheduler": served,
    "net-mtu": has("network", "mtu"),
    "net-mtu-writable": keeps("network", mtu=1300),
    "network-ip-availability": availability,
    "network_availability_zone": has("network", "availability_zones", "availability_zone_hints"),
    "pagination": queries("/networks?limit=1"),
    "port-security": keeps("port", port_security_enabled=False),
    "project-id": all_have("project_id"),
    "provider": has("network", "provider:network_type", "provider:physical_network", "provider:segmentation_id"),
    "quota-check-limit": check_limit,
    "quota-check-limit-default": check_limit_always,
    "quota_details": quota,
    "quotas": quota,
    "rbac-address-scope": shared("address_scope", "address-scopes"),
    "rbac-policies": shared("network", "networks"),
    "rbac-security-groups": shared("security_group", "security-groups"),
    "rbac-subnetpool": shared("subnetpool", "subnetpools"),
    "revision-if-match": revisions,
    "router": has("router", "external_gateway_info"),
    "router_availability_zone": has("router", "availability_zones", "availability_zone_hints"),
    "security-group": has("security_group", "security_group_rules"),
    "security-groups-default-rules": templates,
    "security-groups-normalized-cidr": normalized,
    "sorting": sorted_lists,
    "standard-attr-description": all_have("description"),
    "standard-attr-revisions": all_have("revision_number"),
    "standard-attr-tag": all_have("tags"),
    "standard-attr-timestamp": all_have("created_at", "updated_at"),
    "subnet-external-network": has("subnet", "router:external"),
    "subnet_allocation": pools,
    "tag-creation": tags("router"),
    "tag-ports-during-bulk-creation": tags("port"),
}


@pytest.mark.parametrize("alias", EXTENSIONS)
def test_it_is_there(cloud: Cloud, alias: str) -> None:
    PROOFS[alias](cloud)


def test_nothing_is_proved_in_vain() -> None:
    assert PROOFS.keys() == EXTENSIONS.keys()
