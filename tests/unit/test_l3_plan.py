"""What a router consists of: who may pass, as whom, and that no text of users becomes a rule."""

import ipaddress
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cumulet.neutron.l3.plan import Flow, Hop, Plan, outer_device, plan
from cumulet.neutron.model import Advertised, FloatingIp, RouterIntent, RouterPort

IN, IN2, OUT = (f"{letter * 8}-1111-4111-8111-111111111111" for letter in "abc")
INSIDE = RouterPort(IN, "net", "fa:16:3e:00:00:01", ("10.0.0.1/24", "fd00::1/64"), 1450)
SECOND = RouterPort(IN2, "net2", "fa:16:3e:00:00:02", ("10.2.0.1/24",), 1450)
OUTSIDE = RouterPort(
    OUT, "ext", "fa:16:3e:00:00:09", ("203.0.113.10/24", "2001:db8::10/64"), 1500, ("203.0.113.1", "2001:db8::1")
)
FLOATING = FloatingIp("f1", "203.0.113.20", "10.0.0.5")
INTENT = RouterIntent("r1", 1, False, external=OUTSIDE, interfaces=(INSIDE, SECOND), floating=(FLOATING,))
QG = "qg-cccccccc-11"


def made(**changes: object) -> Plan:
    return plan(replace(INTENT, **changes))


def chain(planned: Plan, name: str) -> list[str]:
    body = re.search(rf"chain {name} {{\n(.*?)\n}}", planned.table, re.DOTALL)
    assert body
    return [line.strip() for line in body[1].splitlines()[1:]]


def test_interfaces_and_addresses() -> None:
    planned = made()
    names = {one.inner: one for one in planned.interfaces}
    assert set(names) == {"qr-aaaaaaaa-11", "qr-bbbbbbbb-11", QG}
    assert names[QG].addresses == {"203.0.113.10/24", "2001:db8::10/64", "203.0.113.20/32"}
    assert names["qr-aaaaaaaa-11"].addresses == {"10.0.0.1/24", "fd00::1/64", "fe80::a9fe:a9fe/64"}
    assert set(names["qr-aaaaaaaa-11"].announced) == {"10.0.0.1", "fd00::1"}  # the shared address is nobody's news
    assert names[QG].outer == outer_device(QG) == "tapcccccccc-11"
    assert planned.floating == ("f1",)
    assert planned.refused == ()


def test_the_order_of_translation() -> None:
    planned = made()
    assert chain(planned, "prerouting")[0] == "dnat ip to ip daddr map { 203.0.113.20 : 10.0.0.5 }"
    mine, hairpin, rest, other_hairpin = chain(planned, "postrouting")
    assert mine == f'oifname "{QG}" snat ip to ip saddr map {{ 10.0.0.5 : 203.0.113.20 }}'
    assert hairpin.startswith('iifname "qr-*" ct status dnat snat ip to ip saddr map')
    assert rest == f'iifname "qr-*" oifname "{QG}" snat ip to 203.0.113.10 fully-random'
    assert "ct status dnat" in other_hairpin


def test_the_outside_may_only_what_is_translated() -> None:
    inward = [rule for rule in chain(made(), "forward") if f'iifname "{QG}"' in rule]
    assert inward == [
        f'iifname "{QG}" oifname "qr-*" ct status dnat accept',
        f'iifname "{QG}" oifname "qr-*" meta nfproto ipv6 accept',
    ]
    assert f'iifname "{QG}" oifname "qr-*" accept' in chain(made(snat=False), "forward")
    assert not any("fully-random" in rule for rule in chain(made(snat=False), "postrouting"))
    assert "policy drop" in made().table


def test_without_a_gateway_and_switched_off() -> None:
    alone = made(external=None)
    assert alone.floating == ()
    assert alone.routes == ()
    assert chain(alone, "postrouting") == []
    assert alone.refused == ("floating IP f1: the router has no gateway",)
    off = made(admin_up=False)
    assert not off.up
    assert off.routes == ()
    assert off.floating == ()
    assert chain(off, "forward") == []
    assert (off.sysctls["net.ipv4.ip_forward"], off.sysctls["net.ipv6.conf.all.forwarding"]) == ("0", "0")


def test_default_and_extra_routes() -> None:
    assert set(made().routes) == {Hop("0.0.0.0/0", QG, "203.0.113.1"), Hop("::/0", QG, "2001:db8::1")}
    planned = made(routes=(("10.9.0.0/16", "10.2.0.9"), ("fd09::/32", "fd00::9"), ("0.0.0.0/0", "10.0.0.7")))
    assert set(planned.routes) == {
        Hop("10.9.0.0/16", "qr-bbbbbbbb-11", "10.2.0.9"),
        Hop("fd09::/32", "qr-aaaaaaaa-11", "fd00::9"),
        Hop("0.0.0.0/0", "qr-aaaaaaaa-11", "10.0.0.7"),
        Hop("::/0", QG, "2001:db8::1"),
    }
    far = made(external=replace(OUTSIDE, gateways=("198.51.100.1", "fe80::1")))
    assert far.routes[0] == Hop("198.51.100.1/32", QG)  # before the route that needs it
    assert Hop("::/0", QG, "fe80::1") in far.routes


@pytest.mark.parametrize(
    ("destination", "via", "why"),
    [
        ("10.9.0.0/16", "192.0.2.1", "is on none of the router's networks"),
        ("10.9.0.1/16", "10.0.0.9", "not a route"),
        ("fd09::/32", "10.0.0.9", "is on none"),
        ("x", "10.0.0.9", "not a route"),
        ("fd09::/32", "fe80::1%qr-aaaaaaaa-11", "not a route"),
        ("10.8.0.0/16", "10.0.0.9", "another one to the same destination"),
    ],
)
def test_routes_that_cannot_be(destination: str, via: str, why: str) -> None:
    planned = made(routes=(("10.8.0.0/16", "10.0.0.8"), (destination, via)))
    assert why in planned.refused[0]
    assert Hop("10.8.0.0/16", "qr-aaaaaaaa-11", "10.0.0.8") in planned.routes


def test_floating_ips_that_cannot_be() -> None:
    planned = made(
        floating=(FLOATING, FloatingIp("f2", "203.0.113.20", "10.0.0.6"), FloatingIp("f3", "fd00::1", "x"))
    )
    assert planned.floating == ("f1",)
    assert [one.split(":")[0] for one in planned.refused] == ["floating IP f2", "floating IP f3"]


def test_one_server_with_two_floating_ips_leaves_by_the_first() -> None:
    planned = made(floating=(FLOATING, FloatingIp("f2", "203.0.113.21", "10.0.0.5")))
    assert planned.floating == ("f1", "f2")
    assert "{ 10.0.0.5 : 203.0.113.20 }" in chain(planned, "postrouting")[0]


def test_the_table_changes_with_whatever_the_neighbours_must_hear() -> None:
    news = [made(), made(external=replace(OUTSIDE, mac="fa:16:3e:00:00:77")), made(interfaces=(INSIDE,)),
            made(interfaces=(INSIDE, replace(SECOND, ips=("10.2.0.254/24",))))]  # fmt: skip
    assert len({planned.table for planned in news}) == 4
    assert made(routes=(("10.9.0.0/16", "10.2.0.9"),)).table == made().table


@pytest.mark.parametrize(
    ("flow", "stale"),
    [
        (Flow("198.51.100.7", "203.0.113.20", "10.0.0.5", "198.51.100.7"), False),  # in by the floating IP
        (Flow("198.51.100.7", "203.0.113.20", "10.0.0.6", "198.51.100.7"), True),  # to who had it before
        (Flow("198.51.100.7", "203.0.113.21", "10.0.0.6", "198.51.100.7"), True),  # one that is gone
        (Flow("198.51.100.7", "203.0.113.20", "203.0.113.20", "198.51.100.7"), True),  # before it was given
        (Flow("10.0.0.5", "198.51.100.7", "198.51.100.7", "203.0.113.20"), False),  # out by the floating IP
        (Flow("10.0.0.5", "198.51.100.7", "198.51.100.7", "203.0.113.10"), False),  # older than the floating IP
        (Flow("10.0.0.6", "198.51.100.7", "198.51.100.7", "203.0.113.20"), True),  # out as somebody else
        (Flow("10.0.0.6", "198.51.100.7", "198.51.100.7", "203.0.113.10"), False),
        (Flow("10.0.0.6", "198.51.100.7", "198.51.100.7", "203.0.113.99"), True),  # an older gateway address
        (Flow("10.0.0.6", "203.0.113.20", "10.0.0.5", "203.0.113.10"), False),  # hairpin
        (Flow("10.0.0.6", "169.254.169.254", "10.0.0.1", "10.0.0.6"), False),  # metadata
        (Flow("10.0.0.6", "10.2.0.9", "10.2.0.9", "10.0.0.6"), False),
    ],
)
def test_stale_connections(flow: Flow, stale: bool) -> None:
    assert made().stale(flow) is stale


BAD = ["x\ny", "fe80::1%\n} ", "1.1.1.1; drop", "0.0.0.0/0 }", "fd00::1%x/64", "10.0.0.5\n"]
texts = st.one_of(
    st.text(max_size=30), st.sampled_from(BAD), st.ip_addresses().map(str), st.ip_addresses(v=4).map(str)
)
TABLE = re.compile(r"[ -~\n]*")


@given(
    ips=st.lists(texts, max_size=3),
    gateways=st.lists(texts, max_size=2),
    floating=st.lists(st.tuples(texts, texts), max_size=4),
    routes=st.lists(st.tuples(texts, texts), max_size=4),
    mac=texts,
)
@example(["fe80::1%\nevil/64"], ["fe80::1%\nevil"], [("1.1.1.1", "1.1.1.1\n")], [("::/0", "fe80::1%\n")], "\nevil")
@settings(max_examples=300)
def test_no_text_of_users_becomes_a_rule(
    ips: list[str],
    gateways: list[str],
    floating: list[tuple[str, str]],
    routes: list[tuple[str, str]],
    mac: str,
) -> None:
    outside = replace(OUTSIDE, ips=tuple(ips), gateways=tuple(gateways), mac=mac)
    planned = made(
        external=outside,
        floating=tuple(FloatingIp(f"f{n}", *pair) for n, pair in enumerate(floating)),
        routes=tuple(routes),
    )
    rules = planned.table.count("\n")
    assert rules <= made().table.count("\n")
    assert TABLE.fullmatch(planned.table)
    for words in re.findall(r"\{ (.*?) \}", planned.table):
        for pair in words.split(", "):
            assert all(ipaddress.IPv4Address(side) for side in pair.split(" : "))
    for hop in planned.routes:
        assert ipaddress.ip_network(hop.destination)
        assert hop.via is None or "%" not in hop.via
    assert len(planned.floating) + sum(one.startswith("floating IP") for one in planned.refused) == len(floating)


def test_a_port_id_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not a port id"):
        made(interfaces=(replace(INSIDE, id='x" accept\n'),))


def test_advertisements() -> None:
    told = (Advertised("s6", "fd00::/64", "slaac", ("2001:db8::53", "192.0.2.1", "x")),)
    words = made(interfaces=(replace(INSIDE, advertised=told), SECOND)).advertising
    assert "--dhcp-range=set:subnet-s6,fd00::,ra-only,64,86400s" in words
    assert "--dhcp-option=tag:subnet-s6,option6:dns-server,[2001:db8::53]" in words
    assert "--ra-param=qr-aaaaaaaa-11,mtu:1450,60,1800" in words
    assert [word for word in words if word.startswith("--interface=")] == ["--interface=qr-aaaaaaaa-11"]
    assert made().advertising == ()
    assert made(interfaces=(replace(INSIDE, advertised=told),), admin_up=False).advertising == ()


def test_the_metadata_address_is_at_one_place() -> None:
    planned = made(interfaces=(replace(INSIDE, metadata_v6=False), SECOND))
    here = [one.inner for one in planned.interfaces if "fe80::a9fe:a9fe/64" in one.addresses]
    assert here == ["qr-bbbbbbbb-11"]


QR, QR2 = "qr-aaaaaaaa-11", "qr-bbbbbbbb-11"
DNAT = 'iifname "qr-*" oifname "qr-*" ct status dnat accept'


def scoped(outside: str, first: str, second: str, **changes: object) -> Plan:
    """IPv4's scopes; IPv6 has none anywhere."""
    ports = (replace(INSIDE, scope_v4=first), replace(SECOND, scope_v4=second))
    return made(external=replace(OUTSIDE, scope_v4=outside), interfaces=ports, **changes)


def test_nothing_passes_between_address_scopes() -> None:
    inner = [rule for rule in chain(scoped("", "s", "t"), "forward") if QG not in rule]
    assert inner == [
        "ct state established,related accept",
        f'meta nfproto ipv4 iifname {{ "{QR}" }} oifname {{ "{QR}" }} accept',
        f'meta nfproto ipv4 iifname {{ "{QR2}" }} oifname {{ "{QR2}" }} accept',
        f'meta nfproto ipv6 iifname {{ "{QR}", "{QR2}" }} oifname {{ "{QR}", "{QR2}" }} accept',
        DNAT,  # but for who calls a floating IP
    ]
    together = chain(scoped("", "s", "s"), "forward")
    assert f'meta nfproto ipv4 iifname {{ "{QR}", "{QR2}" }} oifname {{ "{QR}", "{QR2}" }} accept' in together
    assert chain(scoped("", "", ""), "forward") == chain(made(), "forward")


def test_a_network_of_the_gateways_scope_is_not_hidden() -> None:
    planned = scoped("s", "s", "t")
    mine, _, bare, rest, _ = chain(planned, "postrouting")
    assert "10.0.0.5 : 203.0.113.20" in mine  # a floating IP is used all the same
    assert bare == f'meta nfproto ipv4 iifname {{ "{QR}" }} oifname "{QG}" accept'
    assert rest.endswith("snat ip to 203.0.113.10 fully-random")
    beyond = [rule for rule in chain(planned, "forward") if QG in rule]
    assert beyond == [
        f'oifname "{QG}" ct state invalid meta nfproto ipv4 drop',
        f'iifname "{QG}" oifname "qr-*" ct status dnat accept',
        f'meta nfproto ipv4 iifname "qr-*" oifname "{QG}" accept',  # hidden, or of the scope
        f'meta nfproto ipv4 iifname "{QG}" oifname {{ "{QR}" }} accept',
        f'meta nfproto ipv6 iifname "{QG}" oifname {{ "{QR}", "{QR2}" }} accept',
        f'meta nfproto ipv6 iifname {{ "{QR}", "{QR2}" }} oifname "{QG}" accept',
    ]


def test_without_translation_only_the_gateways_scope_gets_out() -> None:
    planned = scoped("s", "s", "t", snat=False)
    assert not any("fully-random" in rule or "accept" in rule for rule in chain(planned, "postrouting"))
    four = [rule for rule in chain(planned, "forward") if QG in rule and "ipv6" not in rule]
    assert four == [
        f'iifname "{QG}" oifname "qr-*" ct status dnat accept',
        f'iifname "qr-*" oifname "{QG}" ip saddr {{ 10.0.0.5 }} accept',  # its source is translated
        f'meta nfproto ipv4 iifname "{QG}" oifname {{ "{QR}" }} accept',
        f'meta nfproto ipv4 iifname {{ "{QR}" }} oifname "{QG}" accept',
    ]
    six = made(
        external=replace(OUTSIDE, scope_v6="s"), interfaces=(INSIDE, replace(SECOND, scope_v6="t")), floating=()
    )
    assert not any(QG in rule and "ipv6" in rule for rule in chain(six, "forward"))
