"""The story of /v2.0/routers, their gateways and interfaces."""

from typing import Any

from tests.neutron.conftest import Cloud


def interface(cloud: Cloud, who: str, router: str, verb: str = "add", **body: str) -> tuple[int, str]:
    return cloud.refused(who, "PUT", f"/routers/{router}/{verb}_router_interface", body)


def attach(cloud: Cloud, who: str, router: str, **body: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.good(who, "PUT", f"/routers/{router}/add_router_interface", body)
    return found


def test_a_router_from_cradle_to_grave(cloud: Cloud) -> None:
    public, public_subnet = cloud.public_network()
    network, subnet = cloud.network()
    router = cloud.create("alice", "router", name="r1", admin_state_up=True)
    assert router["status"] == "ACTIVE"
    assert router["external_gateway_info"] is None
    assert router["routes"] == []
    url = f"/routers/{router['id']}"
    assert cloud.refused("bob", "GET", url) == (404, "RouterNotFound")
    changed = cloud.update("alice", "router", router["id"], external_gateway_info={"network_id": public}, name="r2")
    gateway = changed["external_gateway_info"]
    assert gateway["network_id"] == public
    assert gateway["enable_snat"] is True
    assert gateway["external_fixed_ips"] == [{"subnet_id": public_subnet, "ip_address": "172.24.4.2"}]
    added = attach(cloud, "alice", router["id"], subnet_id=subnet)
    assert added["id"] == router["id"]
    assert (added["subnet_id"], added["subnet_ids"], added["network_id"]) == (subnet, [subnet], network)
    assert added["tenant_id"] == "red"
    port = cloud.get("alice", f"/ports/{added['port_id']}")["port"]
    assert port["device_owner"] == "network:router_interface"
    assert port["device_id"] == router["id"]
    assert port["fixed_ips"] == [{"subnet_id": subnet, "ip_address": "10.0.0.1"}]
    assert cloud.refused("alice", "DELETE", url) == (409, "RouterInUse")
    assert cloud.refused("alice", "DELETE", f"/ports/{port['id']}") == (409, "ServicePortInUse")
    change = {"port": {"fixed_ips": [{"ip_address": "10.0.0.50"}]}}
    assert cloud.refused("alice", "PUT", f"/ports/{port['id']}", change) == (409, "ServicePortInUse")
    cloud.update("alice", "port", port["id"], name="to r2")
    assert cloud.refused("alice", "DELETE", f"/networks/{network}") == (409, "NetworkInUse")
    assert cloud.refused("alice", "DELETE", f"/subnets/{subnet}") == (409, "SubnetInUse")
    assert cloud.refused("alice", "PUT", f"/subnets/{subnet}", {"subnet": {"gateway_ip": "10.0.0.254"}})[0] == 409
    removed = cloud.good("alice", "PUT", f"{url}/remove_router_interface", {"subnet_id": subnet})
    assert removed["port_id"] == added["port_id"]
    assert interface(cloud, "alice", router["id"], "remove", subnet_id=subnet) == (
        404,
        "RouterInterfaceNotFoundForSubnet",
    )
    cloud.good("alice", "DELETE", url)
    assert cloud.refused("alice", "GET", url)[0] == 404
    assert cloud.get("admin", "/ports")["ports"] == []
    assert [note["router_interface"]["subnet_id"] for note in cloud.notified("router.interface.create")] == [subnet]


def test_gateways(cloud: Cloud) -> None:
    public, subnet = cloud.public_network()
    inside, _ = cloud.network()
    router = cloud.create("alice", "router", external_gateway_info={"network_id": public})
    url = f"/routers/{router['id']}"
    assert (
        cloud.refused("alice", "PUT", url, {"router": {"external_gateway_info": {"network_id": inside}}})[0] == 400
    )
    assert cloud.refused("alice", "PUT", url, {"router": {"external_gateway_info": {"network_id": "x"}}})[0] == 404
    for admins in ({"enable_snat": False}, {"external_fixed_ips": [{"ip_address": "172.24.4.9"}]}):
        body = {"router": {"external_gateway_info": {"network_id": public, **admins}}}
        assert cloud.refused("alice", "PUT", url, body)[0] == 403, admins
    body = {"router": {"external_gateway_info": {"network_id": public, "enable_snat": False}}}
    assert cloud.good("admin", "PUT", url, body)["router"]["external_gateway_info"]["enable_snat"] is False
    fixed = [{"subnet_id": subnet, "ip_address": "172.24.4.99"}]
    body = {"router": {"external_gateway_info": {"network_id": public, "external_fixed_ips": fixed}}}
    assert cloud.good("admin", "PUT", url, body)["router"]["external_gateway_info"]["external_fixed_ips"] == fixed
    assert (
        cloud.update("alice", "router", router["id"], external_gateway_info=None)["external_gateway_info"] is None
    )
    cloud.update("alice", "router", router["id"], external_gateway_info={"network_id": public})
    assert cloud.update("alice", "router", router["id"], external_gateway_info={})["external_gateway_info"] is None
    assert cloud.get("admin", "/ports")["ports"] == []
    cloud.update("alice", "router", router["id"], external_gateway_info={"network_id": public})
    closed = {"network": {"router:external": False}}
    assert cloud.refused("admin", "PUT", f"/networks/{public}", closed) == (409, "ExternalNetworkInUse")
    cloud.good("alice", "DELETE", url)


def test_interfaces(cloud: Cloud) -> None:
    network, subnet = cloud.network()
    other, overlapping = cloud.network(cidr="10.0.0.0/16")
    router = cloud.create("alice", "router")["id"]
    assert interface(cloud, "alice", router)[0] == 400
    assert interface(cloud, "alice", router, subnet_id="x") == (404, "SubnetNotFound")
    assert interface(cloud, "alice", router, port_id="x") == (404, "PortNotFound")
    first = attach(cloud, "alice", router, subnet_id=subnet)["port_id"]
    address = cloud.get("alice", f"/ports/{first}")["port"]["fixed_ips"]
    for same in ([{"subnet_id": subnet}], address):
        assert cloud.update("alice", "port", first, fixed_ips=same)["fixed_ips"] == address
    elsewhere = {"port": {"fixed_ips": [{"subnet_id": subnet, "ip_address": "10.0.0.77"}]}}
    assert cloud.refused("alice", "PUT", f"/ports/{first}", elsewhere) == (409, "ServicePortInUse")
    assert interface(cloud, "alice", router, subnet_id=subnet)[0] == 400
    assert interface(cloud, "alice", router, subnet_id=overlapping)[0] == 400
    second = cloud.create("alice", "router")["id"]
    assert interface(cloud, "alice", second, subnet_id=subnet) == (409, "IpAddressInUse")
    port = cloud.create("alice", "port", network_id=network)
    added = attach(cloud, "alice", second, port_id=port["id"])
    assert added["port_id"] == port["id"]
    seen = cloud.get("alice", f"/ports/{port['id']}")["port"]
    assert (seen["device_owner"], seen["security_groups"]) == ("network:router_interface", [])
    assert interface(cloud, "alice", router, port_id=port["id"]) == (409, "PortInUse")
    bare = cloud.create("alice", "port", network_id=other, fixed_ips=[])["id"]
    assert interface(cloud, "alice", second, port_id=bare)[0] == 400
    used = cloud.create("alice", "port", network_id=other, device_id="vm")["id"]
    assert interface(cloud, "alice", second, port_id=used) == (409, "PortInUse")
    assert interface(cloud, "alice", second, "remove", port_id=bare) == (404, "RouterInterfaceNotFound")
    cloud.good("alice", "PUT", f"/routers/{second}/remove_router_interface", {"port_id": port["id"]})
    assert cloud.refused("alice", "GET", f"/ports/{port['id']}")[0] == 404


def test_ipv6_interfaces_of_a_network_share_a_port(cloud: Cloud) -> None:
    network, four = cloud.network()
    modes = {"ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac", "ip_version": 6, "network_id": network}
    one = cloud.create("alice", "subnet", cidr="fd00::/64", **modes)["id"]
    two = cloud.create("alice", "subnet", cidr="fd01::/64", **modes)["id"]
    router = cloud.create("alice", "router")["id"]
    first = attach(cloud, "alice", router, subnet_id=four)["port_id"]
    second = attach(cloud, "alice", router, subnet_id=one)["port_id"]
    assert attach(cloud, "alice", router, subnet_id=two)["port_id"] == second != first
    port = cloud.get("alice", f"/ports/{second}")["port"]
    assert [address["ip_address"] for address in port["fixed_ips"]] == ["fd00::1", "fd01::1"]
    cloud.good("alice", "PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": one})
    assert len(cloud.get("alice", f"/ports/{second}")["port"]["fixed_ips"]) == 1
    cloud.good("alice", "PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": two})
    assert cloud.refused("alice", "GET", f"/ports/{second}")[0] == 404


def test_routes(cloud: Cloud) -> None:
    _, subnet = cloud.network()
    router = cloud.create("alice", "router")["id"]
    attach(cloud, "alice", router, subnet_id=subnet)
    route = {"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}
    assert cloud.update("alice", "router", router, routes=[route])["routes"] == [route]

    def kind(*routes: dict[str, str]) -> tuple[int, str]:
        return cloud.refused("alice", "PUT", f"/routers/{router}", {"router": {"routes": list(routes)}})

    assert kind({**route, "nexthop": "10.1.0.9"}) == (400, "InvalidRoutes")
    assert kind({**route, "nexthop": "10.0.0.1"}) == (400, "InvalidRoutes")
    assert kind({**route, "nexthop": "fd00::1"})[0] == 400
    assert kind({**route, "destination": "x\n"})[0] == 400
    assert kind(*({**route, "destination": f"10.9.{n}.0/24"} for n in range(31))) == (400, "RoutesExhausted")
    assert interface(cloud, "alice", router, "remove", subnet_id=subnet) == (409, "RouterInterfaceInUseByRoute")
    more = {"destination": "10.8.0.0/16", "nexthop": "10.0.0.9"}
    body = {"router": {"routes": [more, route]}}
    url = f"/routers/{router}"
    assert cloud.good("alice", "PUT", f"{url}/add_extraroutes", body)["router"]["routes"] == [route, more]
    assert cloud.good("alice", "PUT", f"{url}/remove_extraroutes", body)["router"]["routes"] == []
    assert cloud.update("alice", "router", router, routes=None)["routes"] == []


def test_quota_and_bad_input(cloud: Cloud) -> None:
    cloud.good("admin", "PUT", "/quotas/red", {"quota": {"router": 1}})
    cloud.create("alice", "router")
    assert cloud.refused("alice", "POST", "/routers", {"router": {}}) == (409, "OverQuota")
    bodies: list[Any] = [{"distributed": True}, {"name": 5}, {"external_gateway_info": "public"}, {"routes": [{}]}]
    for wrong in bodies:
        assert cloud.refused("bob", "POST", "/routers", {"router": wrong})[0] == 400, wrong
    assert cloud.refused("rita", "POST", "/routers", {"router": {}})[0] == 403
