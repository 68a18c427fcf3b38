"""The story of /v2.0/subnets."""

import pytest

from tests.neutron.conftest import Cloud


def test_a_subnet_from_cradle_to_grave(cloud: Cloud) -> None:
    network = cloud.create("alice", "network")["id"]
    subnet = cloud.create("alice", "subnet", name="s1", network_id=network, ip_version=4, cidr="10.1.0.0/24")
    assert subnet["gateway_ip"] == "10.1.0.1"
    assert subnet["allocation_pools"] == [{"start": "10.1.0.2", "end": "10.1.0.254"}]
    assert subnet["enable_dhcp"] is True
    assert subnet["dns_nameservers"] == subnet["host_routes"] == []
    assert subnet["tenant_id"] == "red"
    assert cloud.get("alice", f"/networks/{network}")["network"]["subnets"] == [subnet["id"]]
    url = f"/subnets/{subnet['id']}"
    assert cloud.refused("bob", "GET", url) == (404, "SubnetNotFound")
    assert cloud.refused("rita", "PUT", url, {"subnet": {"name": "x"}})[0] == 403
    changed = cloud.update(
        "alice",
        "subnet",
        subnet["id"],
        name="s2",
        dns_nameservers=["9.9.9.9", "1.1.1.1"],
        host_routes=[{"destination": "10.9.0.0/16", "nexthop": "10.1.0.9"}],
        enable_dhcp=False,
        gateway_ip=None,
    )
    assert changed["dns_nameservers"] == ["9.9.9.9", "1.1.1.1"]
    assert changed["host_routes"] == [{"destination": "10.9.0.0/16", "nexthop": "10.1.0.9"}]
    assert changed["gateway_ip"] is None
    assert changed["enable_dhcp"] is False
    assert cloud.get("alice", "/subnets?name=s2&cidr=10.1.0.0/24&ip_version=4")["subnets"] == [changed]
    assert cloud.get("bob", "/subnets")["subnets"] == []
    cloud.good("alice", "DELETE", url)
    assert cloud.refused("alice", "GET", url)[0] == 404
    assert len(cloud.notified("subnet.create.end")) == len(cloud.notified("subnet.delete.end")) == 1


def test_pools_and_gateways(cloud: Cloud) -> None:
    network = cloud.create("alice", "network")["id"]
    body = {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"}

    def kind(**values: object) -> tuple[int, str]:
        return cloud.refused("alice", "POST", "/subnets", {"subnet": {**body, **values}})

    pool = {"start": "10.0.0.10", "end": "10.0.0.20"}
    assert kind(allocation_pools=[pool, {**pool, "end": "10.0.0.30"}]) == (409, "OverlappingAllocationPools")
    assert kind(allocation_pools=[{"start": "10.0.0.9", "end": "10.0.0.3"}]) == (400, "InvalidAllocationPool")
    assert kind(allocation_pools=[{"start": "10.0.0.9", "end": "10.0.1.3"}]) == (400, "OutOfBoundsAllocationPool")
    assert kind(allocation_pools=[{"start": "10.0.0.0", "end": "10.0.0.9"}]) == (400, "OutOfBoundsAllocationPool")
    assert kind(allocation_pools=[pool], gateway_ip="10.0.0.15") == (409, "GatewayConflictWithAllocationPools")
    assert kind(gateway_ip="10.0.1.1")[0] == 400
    assert kind(gateway_ip="10.0.0.255")[0] == 400
    assert kind(gateway_ip="fe80::1")[0] == 400
    subnet = cloud.create("alice", "subnet", **body, allocation_pools=[pool], gateway_ip="10.0.0.254")
    assert subnet["allocation_pools"] == [pool]
    overlapping = {**body, "cidr": "10.0.0.128/25"}
    assert cloud.refused("alice", "POST", "/subnets", {"subnet": overlapping})[0] == 400
    middle = cloud.create("alice", "subnet", **{**body, "cidr": "10.0.1.0/29"}, gateway_ip="10.0.1.3")
    assert middle["allocation_pools"] == [
        {"start": "10.0.1.1", "end": "10.0.1.2"},
        {"start": "10.0.1.4", "end": "10.0.1.6"},
    ]
    assert cloud.refused("alice", "PUT", f"/subnets/{middle['id']}", {"subnet": {"gateway_ip": "10.0.1.4"}}) == (
        409,
        "GatewayConflictWithAllocationPools",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"cidr": "10.0.0.5/24"},
        {"cidr": "10.0.0.0"},
        {"cidr": "10.0.0.0/33"},
        {"cidr": "10.0.0.0/255.255.255.0"},
        {"cidr": "fd00::/64"},
        {"cidr": "224.0.0.0/24"},
        {"cidr": "127.0.0.0/8"},
        {"cidr": "0.0.0.0/0"},
        {"cidr": "10.0.0.0/31"},
        {"cidr": "10.0.0.0/24\n"},
        {"cidr": None},
        {"ip_version": 5},
        {"ip_version": 6},
        {"dns_nameservers": ["8.8.8.8\nport=53"]},
        {"dns_nameservers": ["fe80::1%eth0"]},
        {"dns_nameservers": ["1.1.1.1", "1.1.1.1"]},
        {"dns_nameservers": ["dns.example.org"]},
        {"host_routes": [{"destination": "10.0.0.0/8", "nexthop": "fd00::1"}]},
        {"host_routes": [{"destination": "10.0.0.0/8", "nexthop": "$(reboot)"}]},
        {"host_routes": [{"destination": "::1/200", "nexthop": "fd00::1"}]},
        {"ipv6_ra_mode": "slaac"},
        {"ipv6_ra_mode": "magic"},
        {"allocation_pools": [{"start": "a", "end": "b"}]},
        {"allocation_pools": [{"start": "10.0.0.3"}]},
        {"prefixlen": 26},
    ],
)
def test_bad_input(cloud: Cloud, wrong: dict[str, object]) -> None:
    network = cloud.create("alice", "network")["id"]
    body = {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24", **wrong}
    assert cloud.refused("alice", "POST", "/subnets", {"subnet": body})[0] == 400


def test_ipv6_modes(cloud: Cloud) -> None:
    network = cloud.create("alice", "network")["id"]
    body = {"network_id": network, "ip_version": 6}
    modes = {"ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}
    for wrong in (
        {"cidr": "fd00::/65", **modes},
        {"cidr": "fd00::/64", **modes, "enable_dhcp": False},
        {"cidr": "fd00::/64", "ipv6_address_mode": "slaac", "ipv6_ra_mode": "dhcpv6-stateful"},
        {"cidr": "fe80::/64"},
        {"cidr": "ff02::/64"},
    ):
        assert cloud.refused("alice", "POST", "/subnets", {"subnet": {**body, **wrong}})[0] == 400, wrong
    port = cloud.create("alice", "port", network_id=network)
    assert port["fixed_ips"] == []
    subnet = cloud.create("alice", "subnet", **body, cidr="fd00::/64", **modes)
    assert subnet["gateway_ip"] == "fd00::1"
    # a port that was there before has the address that it will give itself
    there = cloud.get("alice", f"/ports/{port['id']}")["port"]["fixed_ips"]
    assert [address["subnet_id"] for address in there] == [subnet["id"]]
    assert there[0]["ip_address"].startswith("fd00::f816:3eff:fe")
    late = cloud.create("alice", "port", network_id=network, mac_address="fa:16:3e:00:00:01")
    assert late["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "fd00::f816:3eff:fe00:1"}]
    chosen = {"network_id": network, "fixed_ips": [{"subnet_id": subnet["id"], "ip_address": "fd00::99"}]}
    assert cloud.refused("alice", "POST", "/ports", {"port": chosen}) == (400, "AllocationOnAutoAddressSubnet")
    stateful = {
        **body,
        "cidr": "fd01::/64",
        "ipv6_address_mode": "dhcpv6-stateful",
        "ipv6_ra_mode": "dhcpv6-stateful",
    }
    second = cloud.create("alice", "subnet", **stateful)
    both = cloud.create("alice", "port", network_id=network)["fixed_ips"]
    assert {address["subnet_id"] for address in both} == {subnet["id"], second["id"]}
    assert "fd01::2" in [address["ip_address"] for address in both]
    # automatic addresses do not keep their subnet, others do
    cloud.good("alice", "DELETE", f"/subnets/{subnet['id']}")
    assert cloud.get("alice", f"/ports/{late['id']}")["port"]["fixed_ips"] == []
    assert cloud.refused("alice", "DELETE", f"/subnets/{second['id']}") == (409, "SubnetInUse")


def test_in_use(cloud: Cloud) -> None:
    cloud.alive("net1", "neutron-dhcp-agent")
    network, subnet = cloud.network()
    port = cloud.create("alice", "port", network_id=network)
    assert cloud.refused("alice", "DELETE", f"/subnets/{subnet}") == (409, "SubnetInUse")
    cloud.good("alice", "DELETE", f"/ports/{port['id']}")
    # the address of the DHCP server does not keep it
    assert len(cloud.get("alice", f"/ports?network_id={network}")["ports"]) == 1
    cloud.good("alice", "DELETE", f"/subnets/{subnet}")
    assert cloud.get("alice", f"/ports?network_id={network}")["ports"] == []


def test_bulk_and_quota(cloud: Cloud) -> None:
    network = cloud.create("alice", "network")["id"]
    bodies = [{"network_id": network, "ip_version": 4, "cidr": f"10.{n}.0.0/24", "name": f"s{n}"} for n in range(3)]
    made = cloud.good("alice", "POST", "/subnets", {"subnets": bodies})["subnets"]
    assert [subnet["name"] for subnet in made] == ["s0", "s1", "s2"]
    cloud.good("admin", "PUT", "/quotas/red", {"quota": {"subnet": 3}})
    more = {**bodies[0], "cidr": "10.9.0.0/24"}
    assert cloud.refused("alice", "POST", "/subnets", {"subnet": more}) == (409, "OverQuota")
