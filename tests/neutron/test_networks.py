"""The story of /v2.0/networks."""

from typing import Any

from tests.neutron.conftest import Cloud


def test_a_network_from_cradle_to_grave(cloud: Cloud) -> None:
    network = cloud.create("alice", "network", name="n1", admin_state_up=True)
    assert network["name"] == "n1"
    assert network["project_id"] == network["tenant_id"] == "red"
    assert network["status"] == "ACTIVE"
    assert network["subnets"] == []
    assert network["mtu"] == 1450
    assert network["shared"] is False
    assert network["router:external"] is False
    assert network["revision_number"] == 1
    assert "provider:network_type" not in network
    url = f"/networks/{network['id']}"
    assert cloud.get("alice", url)["network"] == network
    assert cloud.get("rita", url)["network"] == network
    assert cloud.refused("bob", "GET", url) == (404, "NetworkNotFound")
    seen = cloud.get("admin", url)["network"]
    assert seen["provider:network_type"] == "vxlan"
    assert 1 <= seen["provider:segmentation_id"] < 1 << 24
    changed = cloud.update("alice", "network", network["id"], name="n2", description="d", admin_state_up=False)
    assert (changed["name"], changed["description"], changed["admin_state_up"]) == ("n2", "d", False)
    assert changed["revision_number"] == 2
    assert cloud.refused("rita", "PUT", url, {"network": {"name": "x"}})[0] == 403
    assert cloud.refused("rita", "DELETE", url)[0] == 403
    assert cloud.refused("bob", "DELETE", url)[0] == 404
    assert cloud.good("alice", "DELETE", url) == b""
    assert cloud.refused("alice", "GET", url) == (404, "NetworkNotFound")
    assert [p["network"]["name"] for p in cloud.notified("network.create.end")] == ["n1"]
    assert cloud.notified("network.delete.end") == [{"network_id": network["id"]}]


def test_a_name_is_looked_up_in_two_steps(cloud: Cloud) -> None:
    network = cloud.create("alice", "network", name="n1")
    assert cloud.refused("alice", "GET", "/networks/n1") == (404, "NetworkNotFound")
    assert [n["id"] for n in cloud.get("alice", "/networks?name=n1")["networks"]] == [network["id"]]
    assert cloud.get("alice", "/networks?name=")["networks"] == []


def test_lists_filter_page_sort_and_select(cloud: Cloud) -> None:
    body = {"networks": [{"name": f"n{number}"} for number in range(5)]}
    made = cloud.good("alice", "POST", "/networks", body)["networks"]
    assert [n["name"] for n in made] == [f"n{number}" for number in range(5)]
    page = cloud.get("alice", "/networks?limit=2&sort_key=name&sort_dir=desc")
    assert [n["name"] for n in page["networks"]] == ["n4", "n3"]
    following = page["networks_links"][0]
    assert following["rel"] == "next"
    assert following["href"].startswith("http://127.0.0.1:9696/v2.0/networks?")
    page = cloud.get("alice", "/networks?" + following["href"].partition("?")[2])
    assert [n["name"] for n in page["networks"]] == ["n2", "n1"]
    back = next(link for link in page["networks_links"] if link["rel"] == "previous")
    page = cloud.get("alice", "/networks?" + back["href"].partition("?")[2])
    assert [n["name"] for n in page["networks"]] == ["n4", "n3"]
    picked = cloud.get("alice", "/networks?fields=id&fields=name&name=n1&name=n2&sort_key=name")["networks"]
    assert picked == [{"id": made[1]["id"], "name": "n1"}, {"id": made[2]["id"], "name": "n2"}]
    assert len(cloud.get("alice", "/networks?tenant_id=red&admin_state_up=True&shared=False")["networks"]) == 5
    assert cloud.get("alice", "/networks?status=DOWN")["networks"] == []
    assert cloud.get("bob", "/networks")["networks"] == []
    assert len(cloud.get("admin", "/networks")["networks"]) == 5
    assert cloud.refused("alice", "GET", "/networks?limit=-1")[0] == 400
    assert cloud.refused("alice", "GET", "/networks?marker=nowhere&limit=1")[0] == 400
    assert cloud.refused("alice", "GET", "/networks?admin_state_up=maybe")[0] == 400


def test_attributes_of_an_administrator(cloud: Cloud) -> None:
    mine = cloud.create("alice", "network")
    for name, value in {
        "shared": True,
        "router:external": True,
        "is_default": True,
        "provider:network_type": "flat",
        "provider:physical_network": "public",
        "provider:segmentation_id": 5,
    }.items():
        assert cloud.refused("alice", "POST", "/networks", {"network": {name: value}})[0] == 403, name
        assert cloud.refused("alice", "PUT", f"/networks/{mine['id']}", {"network": {name: value}})[0] == 403, name
    # the default may be named on creation, but not to reset what an administrator has set
    cloud.create("alice", "network", shared=False, router__external=False)
    assert cloud.refused("alice", "PUT", f"/networks/{mine['id']}", {"network": {"shared": False}})[0] == 403
    status, _ = cloud.refused("alice", "POST", "/networks", {"network": {"tenant_id": "blue"}})
    assert status == 400
    assert cloud.create("admin", "network", tenant_id="blue")["project_id"] == "blue"


def test_provider_networks(cloud: Cloud) -> None:
    public, _ = cloud.public_network()
    seen = cloud.get("admin", f"/networks/{public}")["network"]
    assert seen["provider:physical_network"] == "public"
    assert seen["provider:segmentation_id"] is None
    assert seen["mtu"] == 1500
    flat = {"provider:network_type": "flat", "provider:physical_network": "public"}
    assert cloud.refused("admin", "POST", "/networks", {"network": flat}) == (409, "FlatNetworkInUse")
    vlan = {"provider:network_type": "vlan", "provider:physical_network": "phys", "provider:segmentation_id": 7}
    cloud.good("admin", "POST", "/networks", {"network": vlan})
    assert cloud.refused("admin", "POST", "/networks", {"network": vlan}) == (409, "VlanIdInUse")
    vxlan = {"provider:network_type": "vxlan", "provider:segmentation_id": 7}
    cloud.good("admin", "POST", "/networks", {"network": vxlan})
    assert cloud.refused("admin", "POST", "/networks", {"network": vxlan}) == (409, "TunnelIdInUse")
    for wrong in (
        {"provider:network_type": "flat"},
        {"provider:network_type": "token ring"},
        {**flat, "provider:segmentation_id": 3},
        {**vlan, "provider:segmentation_id": 4095},
        {**vxlan, "provider:segmentation_id": 1 << 24},
        {**vxlan, "provider:physical_network": "phys"},
        {"provider:physical_network": "phys"},
        {**flat, "provider:physical_network": "a b\n"},
    ):
        assert cloud.refused("admin", "POST", "/networks", {"network": wrong})[0] == 400, wrong
    change = {"network": {"provider:segmentation_id": 9}}
    assert cloud.refused("admin", "PUT", f"/networks/{public}", change)[0] == 400
    assert cloud.get("bob", f"/networks/{public}")["network"]["router:external"] is True
    assert [n["id"] for n in cloud.get("bob", "/networks?router:external=True")["networks"]] == [public]
    # what may not be seen may not be found out by a filter either
    assert len(cloud.get("bob", "/networks?provider:physical_network=phys")["networks"]) == 1


def test_shared_networks(cloud: Cloud) -> None:
    network = cloud.create("admin", "network", shared=True)["id"]
    subnet = {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"}
    cloud.create("admin", "subnet", **subnet)
    assert [n["id"] for n in cloud.get("bob", "/networks?shared=True")["networks"]] == [network]
    assert cloud.refused("bob", "PUT", f"/networks/{network}", {"network": {"name": "mine"}})[0] == 403
    assert cloud.refused("bob", "DELETE", f"/networks/{network}")[0] == 403
    assert cloud.refused("bob", "POST", "/subnets", {"subnet": {**subnet, "cidr": "10.1.0.0/24"}})[0] == 403
    cloud.create("bob", "port", network_id=network)
    change = {"network": {"shared": False}}
    assert cloud.refused("admin", "PUT", f"/networks/{network}", change) == (409, "InvalidSharedSetting")


def test_a_network_in_use_stays(cloud: Cloud) -> None:
    network, subnet = cloud.network()
    port = cloud.create("alice", "port", network_id=network)["id"]
    assert cloud.refused("alice", "DELETE", f"/networks/{network}") == (409, "NetworkInUse")
    cloud.good("alice", "DELETE", f"/ports/{port}")
    cloud.good("alice", "DELETE", f"/networks/{network}")
    assert cloud.refused("alice", "GET", f"/subnets/{subnet}")[0] == 404


def test_quota(cloud: Cloud) -> None:
    cloud.good("admin", "PUT", "/quotas/red", {"quota": {"network": 2}})
    cloud.create("alice", "network")
    body = {"networks": [{"name": "a"}, {"name": "b"}]}
    assert cloud.refused("alice", "POST", "/networks", body) == (409, "OverQuota")
    assert len(cloud.get("alice", "/networks")["networks"]) == 1
    cloud.create("alice", "network")
    assert cloud.refused("alice", "POST", "/networks", {"network": {}}) == (409, "OverQuota")
    cloud.create("bob", "network")


def test_bad_input(cloud: Cloud) -> None:
    bodies: list[Any] = [
        {"network": {"name": "x" * 256}},
        {"network": {"nome": "x"}},
        {"network": {"admin_state_up": "perhaps"}},
        {"network": {"name": None}},
        {"network": {"dns_domain": "a b"}},
        {"network": []},
        {"networks": []},
        {"network": {}, "networks": [{}]},
        {},
        [],
        b"{",
        b'{"network": {"name": "\\ud800"}}',
        {"network": {"provider:segmentation_id": 10**40}},
    ]
    for wrong in bodies:
        assert cloud.refused("admin", "POST", "/networks", wrong)[0] == 400, wrong
    zones = {"network": {"availability_zone_hints": ["mars"]}}
    assert cloud.refused("alice", "POST", "/networks", zones) == (404, "AvailabilityZoneNotFound")
