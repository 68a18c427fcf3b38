"""Addresses: whatever the pools and whatever is taken."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from cumulet.neutron import ipam


@given(st.integers(0, (1 << 24) - 1))
def test_macs_are_of_the_clouds_own_range(bits: int) -> None:
    mac = ipam.mac_address(bits)
    assert mac.startswith("fa:16:3e:")
    assert int(mac.replace(":", ""), 16) & 0xFFFFFF == bits


@given(st.integers(0, (1 << 24) - 1), st.integers(0, (1 << 64) - 1))
def test_an_address_from_a_mac_is_in_its_subnet_and_tells_the_mac(bits: int, high: int) -> None:
    cidr = str(ip_network((high << 64, 64)))
    address = ip_address(ipam.eui64(cidr, ipam.mac_address(bits)))
    assert address in ip_network(cidr)
    low = int(address).to_bytes(16, "big")[8:]
    assert low[3:5] == b"\xff\xfe"
    assert bytes([low[0] ^ 2, *low[1:3], *low[5:]]).hex(":") == ipam.mac_address(bits)


def test_an_address_from_a_mac_as_the_rfc_shows_it() -> None:
    assert ipam.eui64("2001:db8::/64", "34:56:78:9a:bc:de") == "2001:db8::3656:78ff:fe9a:bcde"


@given(st.integers(0, (1 << 32) - 1), st.integers(8, 30), st.data())
def test_default_pools_hold_every_usable_address_but_the_gateway(
    bits: int, length: int, data: st.DataObject
) -> None:
    network = ip_network((bits >> (32 - length) << (32 - length), length))
    cidr = str(network)
    gateway = data.draw(st.sampled_from([None, ipam.default_gateway(cidr), str(network[-2])]))
    pools = ipam.default_pools(cidr, gateway)
    size = sum(int(ip_address(end)) - int(ip_address(start)) + 1 for start, end in pools)
    assert size == network.num_addresses - 2 - (gateway is not None)
    for start, end in pools:
        assert ipam.inside(cidr, start)
        assert ipam.inside(cidr, end)


@given(st.integers(0, 253))
def test_slots_are_places_in_a_subnet(number: int) -> None:
    for cidr in ("10.0.0.0/24", "fd00::/64"):
        assert ipam.slot(cidr, ipam.at_slot(cidr, number)) == number


def test_a_subnet_of_any_size_has_slots() -> None:
    pools = ipam.default_pools("fd00::/64", "fd00::1")
    assert ipam.slots("fd00::/64", pools)[-1] == (2, ipam.LARGEST_SLOT - 1)
    assert ipam.slot("fd00::/64", "fd00::f816:3eff:fe00:1") is None
    assert ipam.slots("10.0.0.0/30", [("10.0.0.2", "10.0.0.2")]) == [(2, 2)]


def test_prefixes() -> None:
    assert ipam.overlapping("10.0.0.0/16", "10.0.5.0/24")
    assert not ipam.overlapping("10.0.0.0/24", "10.0.1.0/24")
    assert not ipam.overlapping("10.0.0.0/8", "fd00::/8")
    assert ipam.bare("10.0.0.5/32") == "10.0.0.5"
    assert ipam.bare("fd00::5/128") == "fd00::5"
    assert ipam.bare("fd00::/32") == "fd00::/32"
    assert not ipam.inside("10.0.0.0/24", "10.0.0.0")
    assert not ipam.inside("10.0.0.0/24", "10.0.0.255")
    assert ipam.inside("10.0.0.0/31", "10.0.0.0")
