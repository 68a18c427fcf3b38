"""The story of /v2.0/floatingips."""

from typing import Any

import pytest

from tests.neutron.conftest import Cloud


class Routed:
    """alice's network behind her router, with a port on it."""

    def __init__(self, cloud: Cloud) -> None:
        cloud.alive("net1", "neutron-l3-agent", "neutron-openvswitch-agent")
        self.cloud = cloud
        self.public, self.public_subnet = cloud.public_network()
        self.network, self.subnet = cloud.network()
        self.router = cloud.create("alice", "router", external_gateway_info={"network_id": self.public})["id"]
        self.interface("add")
        self.port = cloud.create("alice", "port", network_id=self.network)["id"]

    def interface(self, verb: str) -> Any:
        body = {"subnet_id": self.subnet}
        return self.cloud.call("alice", "PUT", f"/routers/{self.router}/{verb}_router_interface", body)

    def create(self, **values: Any) -> Any:
        return self.cloud.create("alice", "floatingip", floating_network_id=self.public, **values)

    def refused(self, **values: Any) -> tuple[int, str]:
        body = {"floatingip": {"floating_network_id": self.public, **values}}
        return self.cloud.refused("alice", "POST", "/floatingips", body)

    def report(self, *floating: str) -> None:
        """The L3 agent has done what it read."""
        intent = self.cloud.get("host:net1", "/hosts/net1/routers")[self.router]
        seen = {"generation": intent["generation"], "running": True, "floating": list(floating)}
        self.cloud.good("host:net1", "POST", "/hosts/net1/routers", {self.router: seen})

    def status(self, floatingip: str) -> str:
        return str(self.cloud.get("alice", f"/floatingips/{floatingip}")["floatingip"]["status"])


@pytest.fixture
def routed(cloud: Cloud) -> Routed:
    return Routed(cloud)


def test_a_floating_ip_from_cradle_to_grave(cloud: Cloud, routed: Routed) -> None:
    made = routed.create(description="d")
    assert made["floating_ip_address"] == "172.24.4.3"
    assert (made["status"], made["port_id"], made["fixed_ip_address"], made["router_id"]) == (
        "DOWN",
        None,
        None,
        None,
    )
    assert made["tenant_id"] == "red"
    assert made["description"] == "d"
    key = made["id"]
    found = cloud.get("alice", "/floatingips?floating_ip_address=172.24.4.3")["floatingips"]
    assert [one["id"] for one in found] == [key]
    assert cloud.refused("alice", "GET", "/floatingips/172.24.4.3") == (404, "FloatingIPNotFound")
    assert cloud.refused("bob", "GET", f"/floatingips/{key}") == (404, "FloatingIPNotFound")
    tied = cloud.update("alice", "floatingip", key, port_id=routed.port)
    assert (tied["fixed_ip_address"], tied["router_id"]) == ("10.0.0.2", routed.router)
    assert tied["status"] == "DOWN"
    assert ("neutron.routers.net1", routed.router) in cloud.hinted()
    routed.report(key)
    assert routed.status(key) == "ACTIVE"
    assert cloud.get("alice", "/floatingips?status=ACTIVE")["floatingips"][0]["id"] == key
    # a change of something else leaves it as it is
    cloud.update("alice", "router", routed.router, name="other")
    assert routed.status(key) == "ACTIVE"
    cloud.update("alice", "floatingip", key, description="e")
    assert routed.status(key) == "ACTIVE"
    routed.report()
    assert routed.status(key) == "DOWN"
    free = cloud.update("alice", "floatingip", key, port_id=None)
    assert (free["status"], free["port_id"], free["router_id"]) == ("DOWN", None, None)
    cloud.good("alice", "DELETE", f"/floatingips/{key}")
    assert cloud.refused("alice", "GET", f"/floatingips/{key}")[0] == 404
    assert cloud.get("admin", "/ports?device_owner=network:floatingip")["ports"] == []


def test_a_router_without_a_host_has_none_in_place(cloud: Cloud, routed: Routed) -> None:
    key = routed.create(port_id=routed.port)["id"]
    routed.report(key)
    assert routed.status(key) == "ACTIVE"
    (agent,) = cloud.get("admin", "/agents?binary=neutron-l3-agent")["agents"]
    cloud.good("admin", "DELETE", f"/agents/{agent['id']}/l3-routers/{routed.router}")
    assert routed.status(key) == "DOWN"
    cloud.good("admin", "POST", f"/agents/{agent['id']}/l3-routers", {"router_id": routed.router})
    assert routed.status(key) == "DOWN"
    routed.report(key)
    assert routed.status(key) == "ACTIVE"


def test_what_a_floating_ip_needs(cloud: Cloud, routed: Routed) -> None:
    far, _ = cloud.network(cidr="10.7.0.0/24")
    unreachable = cloud.create("alice", "port", network_id=far)["id"]
    assert routed.refused(port_id=unreachable) == (404, "ExternalGatewayForFloatingIPNotFound")
    assert routed.refused(port_id="nowhere") == (404, "PortNotFound")
    assert routed.refused(floating_network_id=far)[0] == 400
    assert routed.refused(floating_network_id="nowhere") == (404, "NetworkNotFound")
    assert routed.refused(fixed_ip_address="10.0.0.2")[0] == 400
    assert routed.refused(port_id=routed.port, fixed_ip_address="10.0.0.9")[0] == 400
    assert routed.refused(floating_ip_address="172.24.4.50")[0] == 403
    assert cloud.get("alice", "/floatingips")["floatingips"] == []
    made = cloud.create(
        "admin", "floatingip", floating_network_id=routed.public, floating_ip_address="172.24.4.50", tenant_id="red"
    )
    assert made["floating_ip_address"] == "172.24.4.50"
    assert made["tenant_id"] == "red"
    none = cloud.create("alice", "port", network_id=routed.network, fixed_ips=[])["id"]
    assert routed.refused(port_id=none)[0] == 400
    two = [{"subnet_id": routed.subnet}, {"subnet_id": routed.subnet}]
    several = cloud.create("alice", "port", network_id=routed.network, fixed_ips=two)
    assert routed.refused(port_id=several["id"])[0] == 400
    chosen = several["fixed_ips"][1]["ip_address"]
    tied = routed.create(port_id=several["id"], fixed_ip_address=chosen)
    assert tied["fixed_ip_address"] == chosen
    again = routed.refused(port_id=several["id"], fixed_ip_address=chosen)
    assert again == (409, "FloatingIPPortAlreadyAssociated")


def test_the_way_stays_while_it_is_used(cloud: Cloud, routed: Routed) -> None:
    key = routed.create(port_id=routed.port)["id"]
    status, answer = routed.interface("remove")
    assert (status, answer["NeutronError"]["type"]) == (409, "RouterInterfaceInUseByFloatingIP")
    url = f"/routers/{routed.router}"
    no_gateway = {"router": {"external_gateway_info": None}}
    assert cloud.refused("alice", "PUT", url, no_gateway) == (409, "RouterExternalGatewayInUseByFloatingIp")
    # a port that goes takes its floating IP's target with it, not the address
    cloud.good("alice", "DELETE", f"/ports/{routed.port}")
    left = cloud.get("alice", f"/floatingips/{key}")["floatingip"]
    assert (left["port_id"], left["status"]) == (None, "DOWN")
    cloud.good("alice", "PUT", url, no_gateway)


def test_an_address_that_leaves_its_port_leaves_its_floating_ip(cloud: Cloud, routed: Routed) -> None:
    key = routed.create(port_id=routed.port)["id"]
    cloud.update("alice", "port", routed.port, fixed_ips=[{"ip_address": "10.0.0.99"}])
    assert cloud.get("alice", f"/floatingips/{key}")["floatingip"]["port_id"] is None


def test_unused_ones_go_with_their_network(cloud: Cloud, routed: Routed) -> None:
    used = routed.create(port_id=routed.port)["id"]
    free = routed.create()["id"]
    url = f"/networks/{routed.public}"
    assert cloud.refused("admin", "DELETE", url) == (409, "NetworkInUse")
    assert cloud.get("alice", f"/floatingips/{free}")["floatingip"]["id"] == free, "nothing went"
    cloud.good("alice", "DELETE", f"/floatingips/{used}")
    routed.interface("remove")
    cloud.good("alice", "DELETE", f"/routers/{routed.router}")
    cloud.good("admin", "DELETE", url)
    assert cloud.get("admin", "/floatingips")["floatingips"] == []
    assert cloud.get("admin", f"/ports?network_id={routed.public}")["ports"] == []


def test_no_address_left_and_quota(cloud: Cloud) -> None:
    network = cloud.create("admin", "network", router__external=True)["id"]
    body = {"floatingip": {"floating_network_id": network}}
    assert cloud.refused("alice", "POST", "/floatingips", body) == (409, "IpAddressGenerationFailure")
    cloud.create("admin", "subnet", network_id=network, ip_version=4, cidr="172.16.0.0/30", enable_dhcp=False)
    cloud.good("alice", "POST", "/floatingips", body)
    assert cloud.refused("alice", "POST", "/floatingips", body) == (409, "IpAddressGenerationFailure")
    cloud.good("admin", "PUT", "/quotas/red", {"quota": {"floatingip": 1}})
    assert cloud.refused("alice", "POST", "/floatingips", body) == (409, "OverQuota")
