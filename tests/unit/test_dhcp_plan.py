"""What dnsmasq is told: exactly what is wanted, whatever users put into names, options and routes."""

import ipaddress
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cumulet.neutron.dhcp.plan import Plan, addresses, interface, plan
from cumulet.neutron.model import DhcpIntent, Lease, Subnet

PORT = "aaaaaaaa-1111-4111-8111-111111111111"
V4 = Subnet("s4", "10.0.0.0/24", 4, True, "10.0.0.1", ("192.0.2.53",))
V6 = Subnet("s6", "fd00::/64", 6, True, "fd00::1", ("2001:db8::53",))
VM = Lease("p1", "fa:16:3e:00:00:05", ("10.0.0.5",), "vm")
INTENT = DhcpIntent(
    network_id="net",
    generation=1,
    absent=False,
    port_id=PORT,
    mac="fa:16:3e:00:00:02",
    ips=("10.0.0.2/24",),
    mtu=1450,
    domain="cloud.example",
    subnets=(V4,),
    leases=(VM,),
)
BAD = ["x\ny", "x\r\nport=1", "fe80::1%\nevil", "1.1.1.1,option:router", "a,b", "$(id)", "`id`", "-x", "x\x00", "é"]
texts = st.one_of(st.text(max_size=40), st.sampled_from(BAD), st.from_regex(r"[a-z0-9.:%,\n #\"\\-]{0,30}"))


def made(**changes: object) -> Plan:
    return plan(replace(INTENT, **changes), "/run/x", ("192.0.2.1",))


def lines(planned: Plan, name: str) -> list[str]:
    return planned.files[name].splitlines()


def test_a_network() -> None:
    planned = made()
    assert interface(INTENT) == ("tapaaaaaaaa-11", "ns-aaaaaaaa-11")
    assert addresses(INTENT) == {"10.0.0.2/24", "169.254.169.254/32", "fe80::a9fe:a9fe/64"}
    assert lines(planned, "hosts") == ["fa:16:3e:00:00:05,vm.cloud.example,10.0.0.5"]
    assert lines(planned, "names") == ["10.0.0.5\tvm.cloud.example vm"]
    route = "169.254.169.254/32,10.0.0.2,0.0.0.0/0,10.0.0.1"
    assert lines(planned, "options") == [
        "tag:subnet-s4,option:dns-server,192.0.2.53",
        f"tag:subnet-s4,option:classless-static-route,{route}",
        f"tag:subnet-s4,249,{route}",
        "tag:subnet-s4,option:router,10.0.0.1",
    ]
    assert "--dhcp-range=set:subnet-s4,10.0.0.0,static,255.255.255.0,86400s" in planned.arguments
    assert "--domain=cloud.example" in planned.arguments
    assert planned.refused == ()


def test_without_metadata_and_gateway() -> None:
    planned = made(metadata_isolated=False, subnets=(replace(V4, gateway=""),))
    assert lines(planned, "options")[-1] == "tag:subnet-s4,option:router"  # none, not dnsmasq's own address
    assert not any("static-route" in line for line in lines(planned, "options"))


def test_both_versions_and_a_subnet_that_is_not_served() -> None:
    silent = replace(V4, id="s5", cidr="10.5.0.0/24", dhcp=False)
    lease = replace(VM, ips=("10.0.0.5", "fd00::5", "10.5.0.5"))
    planned = made(subnets=(V4, V6, silent), leases=(lease,), ips=("10.0.0.2/24", "fd00::2/64"))
    assert [line.rsplit(",", 1)[1] for line in lines(planned, "hosts")] == ["10.0.0.5", "[fd00::5]"]
    assert "tag:subnet-s6,option6:dns-server,[2001:db8::53]" in lines(planned, "options")
    assert "--dhcp-range=set:subnet-s6,fd00::,static,64,86400s" in planned.arguments
    assert not any("s5" in argument for argument in planned.arguments)


def test_name_servers_of_the_wrong_version_are_left_out() -> None:
    planned = made(subnets=(replace(V4, dns=("2001:db8::53",)), replace(V6, dns=("192.0.2.53",))))
    assert [line for line in lines(planned, "options") if "dns-server" in line] == [
        "tag:subnet-s4,option:dns-server,10.0.0.2"
    ]


def test_options_of_a_port() -> None:
    options = (
        ("bootfile-name", "pxe.0", 4),
        ("150", "192.0.2.9", 4),
        ("23", "[fd00::9]", 6),
        ("ntp-server", "x", 6),
    )
    planned = made(leases=(replace(VM, options=options),))
    assert lines(planned, "hosts") == ["fa:16:3e:00:00:05,set:port-p1,vm.cloud.example,10.0.0.5"]
    assert lines(planned, "options")[-4:] == [
        "tag:port-p1,option:bootfile-name,pxe.0",
        "tag:port-p1,150,192.0.2.9",
        "tag:port-p1,option6:23,[fd00::9]",
        "tag:port-p1,option6:ntp-server,x",
    ]


def test_only_arguments_restart_dnsmasq() -> None:
    assert made().arguments == made(leases=()).arguments
    assert made().arguments != made(mtu=1400).arguments


def test_without_a_domain_no_name_is_one_of_dnsmasqs_own_words() -> None:
    for word in ("ignore", "infinite", "60m", "3600"):
        planned = made(domain="", leases=(replace(VM, hostname=word),))
        assert lines(planned, "hosts") == ["fa:16:3e:00:00:05,host-10-0-0-5,10.0.0.5"]


HOST_LINE = re.compile(r"fa:16:3e:00:00:05,(set:port-p1,)?[A-Za-z0-9.-]+,10\.0\.0\.5")
NAME_LINE = re.compile(r"10\.0\.0\.5\t[A-Za-z0-9.-]+( [A-Za-z0-9-]+)?")
SUBNET_LINE = re.compile(r"tag:subnet-s4,(option:(dns-server|classless-static-route|router)|249)(,[0-9./,]+)?")
PORT_LINE = re.compile(r"tag:port-p1,(option6?:[a-z0-9-]+|[0-9]+),[^,\x00-\x1f\x7f]+")


@given(
    hostname=texts,
    domain=texts,
    options=st.lists(st.tuples(texts, texts, st.sampled_from([4, 6])), max_size=3),
    dns=st.lists(texts, max_size=3),
    routes=st.lists(st.tuples(texts, texts), max_size=3),
    gateway=texts,
)
@example("vm", "x", [("mtu", "1400\nevil", 4)], ["fe80::1%\nevil"], [("fe80::%\n/64", "fe80::1%\n")], "fe80::1%\nx")
@settings(max_examples=300)
def test_no_text_of_users_adds_a_line_or_an_option(
    hostname: str,
    domain: str,
    options: list[tuple[str, str, int]],
    dns: list[str],
    routes: list[tuple[str, str]],
    gateway: str,
) -> None:
    planned = made(
        domain=domain,
        leases=(replace(VM, hostname=hostname, options=tuple(options)),),
        subnets=(replace(V4, dns=tuple(dns), routes=tuple(routes), gateway=gateway),),
    )
    assert all(HOST_LINE.fullmatch(line) for line in split(planned, "hosts"))
    assert all(NAME_LINE.fullmatch(line) for line in split(planned, "names"))
    assert len(split(planned, "hosts")) == len(split(planned, "names")) == 1
    of_ports = [line for line in split(planned, "options") if PORT_LINE.fullmatch(line)]
    of_subnets = [line for line in split(planned, "options") if SUBNET_LINE.fullmatch(line)]
    assert len(of_ports) + len(of_subnets) == len(split(planned, "options"))
    assert len(of_ports) + len([one for one in planned.refused if one.startswith("port p1: option")]) == len(
        options
    )
    assert len(of_subnets) == 4
    for argument in planned.arguments[1:]:
        assert re.fullmatch(r"--[a-z-]+(=[A-Za-z0-9 :,/._-]*)?", argument)


def split(planned: Plan, name: str) -> list[str]:
    """As dnsmasq reads lines: nothing else ends one, and a carriage return is no part of one."""
    text = planned.files[name]
    assert text.endswith("\n") or not text
    assert "\r" not in text
    assert "\0" not in text
    return text.split("\n")[:-1]


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_good_routes_pass(destination: ipaddress.IPv4Address, hop: ipaddress.IPv4Address) -> None:
    planned = made(subnets=(replace(V4, routes=((f"{destination}/32", str(hop)),)),))
    assert planned.refused == ()
    assert f"{destination}/32,{hop}" in lines(planned, "options")[1]


def test_dhcpv6_where_the_cloud_is_to_serve_it() -> None:
    for address_mode, ra_mode, served in (
        ("", "", True),
        ("dhcpv6-stateful", "dhcpv6-stateful", True),
        ("dhcpv6-stateless", "dhcpv6-stateless", True),
        ("dhcpv6-stateful", "", True),
        ("slaac", "slaac", False),
        ("slaac", "", False),
        ("", "dhcpv6-stateful", False),  # somebody else's server
    ):
        subnet = replace(V6, ipv6_address_mode=address_mode, ipv6_ra_mode=ra_mode)
        ranges = [word for word in made(subnets=(V4, subnet)).arguments if word.startswith("--dhcp-range=")]
        there = ["--dhcp-range=set:subnet-s6,fd00::,static,64,86400s"] if served else []
        assert ranges[1:] == there


def test_a_bad_subnet_is_left_out() -> None:
    planned = made(subnets=(V4, replace(V6, cidr="fd00::/56"), replace(V6, id="s7", cidr="nonsense")))
    assert len(planned.refused) == 2
    assert planned.arguments == made().arguments
