"""IPv6: what ports get on networks of every mode, and what agents are told of it."""

from typing import Any

from cumulet.core.context import Context
from cumulet.neutron import ipam, public
from cumulet.neutron.bindings import DHCP_AGENT, L3_AGENT
from cumulet.neutron.model import PortWish
from tests.neutron.conftest import Cloud

ALICE = Context(user_id="alice", project_id="red", roles=frozenset({"member", "reader"}))


def subnet(cloud: Cloud, network: str, mode: str = "", cidr: str = "fd01::/64", **values: Any) -> str:
    if mode:
        values |= {"ipv6_ra_mode": mode, "ipv6_address_mode": mode}
    return str(cloud.create("alice", "subnet", network_id=network, ip_version=6, cidr=cidr, **values)["id"])


def ips(port: Any) -> list[str]:
    return [fixed["ip_address"] for fixed in port["fixed_ips"]]


def test_a_port_of_a_dual_stack_network_has_both(cloud: Cloud) -> None:
    for mode in ("slaac", "dhcpv6-stateless", "dhcpv6-stateful", ""):
        network, _ = cloud.network()
        subnet(cloud, network, mode)
        port = cloud.create("alice", "port", network_id=network)
        own = ipam.eui64("fd01::/64", port["mac_address"])
        four, six = ips(port)
        assert four.startswith("10.0.0.")
        assert six == own if mode in ("slaac", "dhcpv6-stateless") else six != own


def test_addresses_follow_what_the_router_advertises(cloud: Cloud) -> None:
    """A subnet with only the router's mode: guests make their addresses, so their ports have them."""
    network = cloud.create("alice", "network", name="n")["id"]
    subnet(cloud, network, ipv6_ra_mode="slaac")
    port = cloud.create("alice", "port", network_id=network)
    assert ips(port) == [ipam.eui64("fd01::/64", port["mac_address"])]


def test_ports_that_were_there_get_the_new_subnets_address(cloud: Cloud) -> None:
    network, _ = cloud.network()
    port = cloud.create("alice", "port", network_id=network)["id"]
    mine = subnet(cloud, network, "slaac")
    assert len(ips(cloud.get("alice", f"/ports/{port}")["port"])) == 2
    cloud.good("alice", "DELETE", f"/subnets/{mine}")
    assert len(ips(cloud.get("alice", f"/ports/{port}")["port"])) == 1


def test_a_router_is_told_what_to_advertise(cloud: Cloud) -> None:
    cloud.alive("h1", L3_AGENT)
    network, four = cloud.network()
    six = subnet(cloud, network, "dhcpv6-stateless", dns_nameservers=["2001:db8::53"])
    quiet = subnet(cloud, network, cidr="fd02::/64")
    router = cloud.create("alice", "router", name="r")["id"]
    for one in (four, six, quiet):
        cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": one})
    ports = cloud.get("host:h1", "/hosts/h1/routers")[router]["interfaces"]
    assert len(ports) == 2  # the IPv6 subnets share one
    told = {"subnet_id": six, "cidr": "fd01::/64", "mode": "dhcpv6-stateless", "dns": ["2001:db8::53"]}
    assert [port["advertised"] for port in ports] == [[], [told]]
    generation = cloud.get("host:h1", "/hosts/h1/routers")[router]["generation"]
    cloud.update("alice", "subnet", six, dns_nameservers=[])
    after = cloud.get("host:h1", "/hosts/h1/routers")[router]
    assert after["generation"] > generation
    assert after["interfaces"][1]["advertised"][0]["dns"] == []


def test_one_place_of_a_network_has_the_metadata_address(cloud: Cloud) -> None:
    cloud.alive("h1", L3_AGENT)
    network, one = cloud.network()
    routers = [cloud.create("alice", "router", name=name)["id"] for name in "ab"]
    cloud.good("alice", "PUT", f"/routers/{routers[0]}/add_router_interface", {"subnet_id": one})
    port = cloud.create("alice", "port", network_id=network)["id"]
    cloud.good("alice", "PUT", f"/routers/{routers[1]}/add_router_interface", {"port_id": port})

    def answering() -> list[bool]:
        intents = cloud.get("host:h1", "/hosts/h1/routers")
        return [intents[router]["interfaces"][0]["metadata_v6"] for router in routers]

    assert answering() == [True, False]
    cloud.alive("h1", DHCP_AGENT)
    cloud.loop.run_once()
    assert answering() == [False, False]


def test_who_asks_from_a_link_local_address(cloud: Cloud) -> None:
    cloud.alive("h1", L3_AGENT, DHCP_AGENT)
    network, one = cloud.network()
    router = cloud.create("alice", "router", name="r")["id"]
    cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": one})
    with cloud.db.transaction() as tx:
        port = public.create_server_ports(tx, ALICE, "server", "vm", [PortWish(network)], [])[0]
    own = ipam.eui64("fe80::/64", port.mac)
    other = ipam.eui64("fe80::/64", "fa:16:3e:ff:ff:ff")
    for place in (f"network={network}", f"router={router}"):
        url = f"/hosts/h1/owner?{place}&ip="
        assert cloud.get("host:h1", url + own) == {"device_id": "server", "project_id": "red"}
        for nobody in (other, "fe80::1", "fe80::1:f816:3eff:fe00:1", "x"):
            assert cloud.get("host:h1", url + nobody) == {"device_id": "", "project_id": ""}
    assert cloud.get("host:h2", f"/hosts/h2/owner?network={network}&ip={own}")["device_id"] == ""
