"""The stories of /v2.0/subnetpools and /v2.0/address-scopes."""

from typing import Any

import pytest

from tests.neutron.conftest import Cloud


def pool(cloud: Cloud, who: str = "alice", *prefixes: str, **values: Any) -> str:
    made = cloud.create(who, "subnetpool", name="p", prefixes=list(prefixes or ("10.0.0.0/16",)), **values)
    return str(made["id"])


def subnet(cloud: Cloud, network: str, pool_id: str, **values: Any) -> Any:
    return cloud.create("alice", "subnet", network_id=network, subnetpool_id=pool_id, **values)


def test_a_pool_from_cradle_to_grave(cloud: Cloud) -> None:
    made = cloud.create("alice", "subnetpool", name="p", prefixes=["10.1.0.0/24", "10.1.1.0/24", "10.3.0.0/24"])
    assert made["prefixes"] == ["10.1.0.0/23", "10.3.0.0/24"]
    lengths = ("ip_version", "min_prefixlen", "default_prefixlen", "max_prefixlen")
    assert [made[name] for name in lengths] == [4, 8, 8, 32]
    assert (made["shared"], made["is_default"], made["address_scope_id"], made["default_quota"]) == (
        False, False, None, None,
    )  # fmt: skip
    url = f"/subnetpools/{made['id']}"
    assert cloud.get("rita", url)["subnetpool"] == made
    assert cloud.refused("bob", "GET", url) == (404, "SubnetPoolNotFound")
    change = {"name": "q", "prefixes": ["10.1.0.0/22", "10.3.0.0/24"], "default_prefixlen": 26, "min_prefixlen": 24}
    changed = cloud.update("alice", "subnetpool", made["id"], **change)
    assert {name: changed[name] for name in change} == change
    assert changed["revision_number"] == 2
    smaller = {"subnetpool": {"prefixes": ["10.1.0.0/22"]}}
    assert cloud.refused("alice", "PUT", url, smaller) == (400, "IllegalSubnetPoolPrefixUpdate")
    assert cloud.refused("rita", "PUT", url, {"subnetpool": {"name": "x"}})[0] == 403
    assert [one["id"] for one in cloud.get("alice", "/subnetpools?name=q&ip_version=4")["subnetpools"]] == [
        made["id"]
    ]
    assert cloud.get("bob", "/subnetpools")["subnetpools"] == []
    cloud.good("alice", "DELETE", url)
    assert cloud.refused("alice", "GET", url)[0] == 404


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"prefixes": []}, "EmptySubnetPoolPrefixList"),
        ({"prefixes": ["10.0.0.0/8", "fd00::/48"]}, "PrefixVersionMismatch"),
        ({"prefixes": ["10.0.0.1/8"]}, "InvalidInput"),
        ({"prefixes": ["x"]}, "InvalidInput"),
        ({"name": ""}, "InvalidInput"),
        ({"min_prefixlen": 24, "max_prefixlen": 23}, "IllegalSubnetPoolPrefixBounds"),
        ({"max_prefixlen": 33}, "IllegalSubnetPoolPrefixBounds"),
        ({"default_prefixlen": 7}, "IllegalSubnetPoolPrefixBounds"),
        ({"default_prefixlen": 30, "max_prefixlen": 29}, "IllegalSubnetPoolPrefixBounds"),
        ({"default_quota": -1}, "HTTPBadRequest"),
        ({"colour": 1}, "HTTPBadRequest"),
    ],
)
def test_what_is_no_pool(cloud: Cloud, wrong: dict[str, Any], kind: str) -> None:
    body = {"subnetpool": {"name": "p", "prefixes": ["10.0.0.0/16"], **wrong}}
    assert cloud.refused("alice", "POST", "/subnetpools", body) == (400, kind)


def test_subnets_from_a_pool(cloud: Cloud) -> None:
    pool_id = pool(cloud, "alice", "10.0.0.0/23", default_prefixlen=25)
    network = cloud.create("alice", "network")["id"]
    first = subnet(cloud, network, pool_id, ip_version=4)
    assert (first["cidr"], first["gateway_ip"], first["subnetpool_id"]) == ("10.0.0.0/25", "10.0.0.1", pool_id)
    assert subnet(cloud, network, pool_id, prefixlen=24)["cidr"] == "10.0.1.0/24"
    assert subnet(cloud, network, pool_id, cidr="10.0.0.192/26")["cidr"] == "10.0.0.192/26"
    url = "/subnets"

    def wish(**values: Any) -> dict[str, Any]:
        return {"subnet": {"network_id": network, "subnetpool_id": pool_id, **values}}

    assert cloud.refused("alice", "POST", url, wish(prefixlen=25)) == (409, "SubnetAllocationError")
    assert cloud.refused("alice", "POST", url, wish(cidr="10.0.0.128/25")) == (409, "SubnetAllocationError")
    assert cloud.refused("alice", "POST", url, wish(cidr="10.9.0.0/25")) == (409, "SubnetAllocationError")
    assert cloud.refused("alice", "POST", url, wish(prefixlen=7)) == (400, "MinPrefixSubnetAllocationError")
    assert cloud.refused("alice", "POST", url, wish(cidr="10.0.0.128/26", prefixlen=26))[0] == 400
    assert cloud.refused("alice", "POST", url, wish(ip_version=6))[0] == 400
    # all subnets of a network come from one pool, or none does
    plain = {"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.7.0.0/24"}}
    assert cloud.refused("alice", "POST", url, plain) == (400, "NetworkSubnetPoolAffinityError")
    assert cloud.refused("alice", "DELETE", f"/subnetpools/{pool_id}") == (400, "SubnetPoolDeleteError")
    assert len(cloud.get("alice", f"/subnets?subnetpool_id={pool_id}")["subnets"]) == 3
    # what is given back is free again
    cloud.good("alice", "DELETE", f"/subnets/{first['id']}")
    other = cloud.create("alice", "network")["id"]
    assert subnet(cloud, other, pool_id)["cidr"] == "10.0.0.0/25"


def test_ipv6_and_a_projects_share_of_a_pool(cloud: Cloud) -> None:
    pool_id = pool(cloud, "alice", "fd00:0:0:8::/61", default_quota=2)
    network = cloud.create("alice", "network")["id"]
    made = [subnet(cloud, network, pool_id, ip_version=6)["cidr"] for _ in range(2)]
    assert made == ["fd00:0:0:8::/64", "fd00:0:0:9::/64"]
    body = {"subnet": {"network_id": network, "subnetpool_id": pool_id}}
    assert cloud.refused("alice", "POST", "/subnets", body) == (409, "SubnetPoolQuotaExceeded")


def test_a_pool_for_all_and_by_default(cloud: Cloud) -> None:
    body = {"subnetpool": {"name": "p", "prefixes": ["10.0.0.0/16"], "shared": True}}
    assert cloud.refused("alice", "POST", "/subnetpools", body)[0] == 403
    default = {"subnetpool": {"name": "p", "prefixes": ["10.0.0.0/16"], "is_default": True}}
    assert cloud.refused("alice", "POST", "/subnetpools", default)[0] == 403
    network = cloud.create("alice", "network")["id"]
    wish = {"subnet": {"network_id": network, "use_default_subnetpool": True}}
    assert cloud.refused("alice", "POST", "/subnets", wish)[0] == 400
    pool_id = pool(cloud, "admin", "10.0.0.0/16", shared=True, is_default=True, default_prefixlen=24)
    assert cloud.refused("admin", "POST", "/subnetpools", default)[0] == 400
    assert cloud.get("alice", f"/subnetpools/{pool_id}")["subnetpool"]["shared"] is True
    assert [one["id"] for one in cloud.get("bob", "/subnetpools?shared=True&is_default=True")["subnetpools"]] == [
        pool_id
    ]
    assert cloud.good("alice", "POST", "/subnets", wish)["subnet"]["subnetpool_id"] == pool_id
    (policy,) = cloud.get("admin", f"/rbac-policies?object_type=subnetpool&object_id={pool_id}")["rbac_policies"]
    assert cloud.refused("admin", "DELETE", f"/rbac-policies/{policy['id']}") == (409, "RbacPolicyInUse")
    assert cloud.refused("bob", "PUT", f"/subnetpools/{pool_id}", {"subnetpool": {"name": "x"}})[0] == 403


def test_a_network_has_the_scope_of_its_subnets(cloud: Cloud) -> None:
    scope = cloud.good("alice", "POST", "/address-scopes", {"address_scope": {"name": "s", "ip_version": 4}})
    network = cloud.create("alice", "network")
    assert (network["ipv4_address_scope"], network["ipv6_address_scope"]) == (None, None)
    subnet(
        cloud, network["id"], pool(cloud, address_scope_id=scope["address_scope"]["id"]), ip_version=4, prefixlen=24
    )
    cloud.create("alice", "subnet", network_id=network["id"], ip_version=6, cidr="fd00::/64")
    seen = cloud.get("alice", f"/networks/{network['id']}")["network"]
    assert (seen["ipv4_address_scope"], seen["ipv6_address_scope"]) == (scope["address_scope"]["id"], None)
    assert len(seen["subnets"]) == 2
    assert cloud.get("alice", "/networks")["networks"] == [seen]


def test_address_scopes(cloud: Cloud) -> None:
    scope = cloud.good("alice", "POST", "/address-scopes", {"address_scope": {"name": "s", "ip_version": 4}})
    scope = scope["address_scope"]
    assert (scope["shared"], scope["ip_version"], scope["project_id"]) == (False, 4, "red")
    url = f"/address-scopes/{scope['id']}"
    assert cloud.get("alice", url)["address_scope"] == scope
    assert cloud.refused("bob", "GET", url) == (404, "AddressScopeNotFound")
    assert cloud.good("alice", "PUT", url, {"address_scope": {"name": "t"}})["address_scope"]["name"] == "t"
    assert cloud.refused("alice", "PUT", url, {"address_scope": {"shared": True}})[0] == 403
    mine = pool(cloud, "alice", "10.0.0.0/16", address_scope_id=scope["id"])
    overlapping = {"subnetpool": {"name": "p", "prefixes": ["10.0.4.0/24"], "address_scope_id": scope["id"]}}
    assert cloud.refused("alice", "POST", "/subnetpools", overlapping) == (409, "AddressScopePrefixConflict")
    six = {"subnetpool": {"name": "p", "prefixes": ["fd00::/48"], "address_scope_id": scope["id"]}}
    kind = "IllegalSubnetPoolIpVersionAssociationToAddressScope"
    assert cloud.refused("alice", "POST", "/subnetpools", six) == (400, kind)
    assert cloud.refused("alice", "DELETE", url) == (409, "AddressScopeInUse")
    cloud.update("alice", "subnetpool", mine, address_scope_id=None)
    cloud.good("admin", "PUT", url, {"address_scope": {"shared": True}})
    assert cloud.get("bob", "/address-scopes?shared=True")["address_scopes"][0]["id"] == scope["id"]
    assert cloud.refused("admin", "PUT", url, {"address_scope": {"shared": False}})[0] == 400
    cloud.good("alice", "DELETE", url)
    assert cloud.get("admin", "/rbac-policies")["rbac_policies"] == []
    for wrong in ({}, {"ip_version": 5}, {"ip_version": 4, "colour": 1}):
        assert cloud.refused("alice", "POST", "/address-scopes", {"address_scope": wrong})[0] == 400
