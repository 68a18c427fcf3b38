"""MTU, addresses that are left, a floating IP's port, and a limit of nothing."""

from cumulet.neutron.bindings import DHCP_AGENT
from tests.neutron.conftest import Cloud


def test_a_networks_mtu(cloud: Cloud) -> None:
    cloud.alive("n1", DHCP_AGENT)
    network, _ = cloud.network()
    assert cloud.get("alice", f"/networks/{network}")["network"]["mtu"] == 1450
    before = cloud.get("host:n1", "/hosts/n1/dhcp")[network]
    cloud.hinted()
    assert cloud.update("alice", "network", network, mtu=1300)["mtu"] == 1300
    after = cloud.get("host:n1", "/hosts/n1/dhcp")[network]
    assert (after["mtu"], after["generation"] > before["generation"]) == (1300, True)
    assert {("neutron.dhcp.n1", network), ("neutron.ports.n1", "*")} <= cloud.hinted()
    for wrong in (1451, 67, -1, "x"):
        body = {"network": {"mtu": wrong}}
        assert cloud.refused("alice", "PUT", f"/networks/{network}", body)[0] == 400
        assert cloud.refused("alice", "POST", "/networks", body)[0] == 400
    assert cloud.update("alice", "network", network, mtu=0)["mtu"] == 1450
    assert cloud.create("alice", "network", name="small", mtu=1000)["mtu"] == 1000


def test_ipv6_needs_larger_frames(cloud: Cloud) -> None:
    network, _ = cloud.network(cidr="fd01::/64")
    assert cloud.refused("alice", "PUT", f"/networks/{network}", {"network": {"mtu": 1279}})[0] == 400
    small = cloud.create("alice", "network", name="small", mtu=1279)["id"]
    body = {"subnet": {"network_id": small, "ip_version": 6, "cidr": "fd01::/64"}}
    assert cloud.refused("alice", "POST", "/subnets", body)[0] == 400


def test_addresses_that_are_left(cloud: Cloud) -> None:
    network, four = cloud.network(cidr="10.0.0.0/28")
    six = cloud.create("alice", "subnet", network_id=network, ip_version=6, cidr="fd01::/64")["id"]
    other = cloud.create("alice", "network", name="empty")["id"]
    cloud.create("alice", "port", network_id=network)
    found = cloud.get("admin", f"/network-ip-availabilities/{network}")["network_ip_availability"]
    parts = {one["subnet_id"]: one for one in found["subnet_ip_availability"]}
    assert (parts[four]["total_ips"], parts[four]["used_ips"]) == (13, 1)
    assert (parts[six]["total_ips"], parts[six]["used_ips"]) == (2**64 - 2, 1)
    assert (found["used_ips"], found["project_id"], found["network_name"]) == (2, "red", "net")
    wide = cloud.network(cidr="fd02::/48")[0]
    large = cloud.get("admin", f"/network-ip-availabilities/{wide}")["network_ip_availability"]
    assert large["total_ips"] == 2**80 - 2
    cloud.good("alice", "DELETE", f"/networks/{wide}")
    listed = cloud.get("admin", "/network-ip-availabilities?ip_version=4")["network_ip_availabilities"]
    assert [(one["network_id"], one["total_ips"]) for one in listed] == [(network, 13), (other, 0)]
    named = cloud.get("admin", "/network-ip-availabilities?network_name=empty")["network_ip_availabilities"]
    assert [one["network_id"] for one in named] == [other]
    assert cloud.refused("admin", "GET", "/network-ip-availabilities?ip_version=5")[0] == 400
    assert cloud.refused("alice", "GET", "/network-ip-availabilities")[0] == 403
    assert cloud.refused("admin", "GET", "/network-ip-availabilities/x") == (404, "NetworkNotFound")


def test_a_floating_ips_port(cloud: Cloud) -> None:
    public, _ = cloud.public_network()
    network, subnet = cloud.network()
    router = cloud.create("alice", "router", name="r", external_gateway_info={"network_id": public})["id"]
    cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    port = cloud.create("alice", "port", network_id=network, name="p")
    floating = cloud.create("alice", "floatingip", floating_network_id=public)
    assert floating["port_details"] is None
    after = cloud.update("alice", "floatingip", floating["id"], port_id=port["id"])
    names = ("name", "network_id", "mac_address", "admin_state_up", "status", "device_id", "device_owner")
    assert after["port_details"] == {name: port[name] for name in names}
    assert cloud.get("alice", "/floatingips")["floatingips"][0]["port_details"]["name"] == "p"


def test_a_limit_of_nothing_is_none(cloud: Cloud) -> None:
    for number in range(3):
        cloud.create("alice", "network", name=f"n{number}")
    found = cloud.get("alice", "/networks?limit=0")
    assert len(found["networks"]) == 3
    assert "networks_links" not in found
