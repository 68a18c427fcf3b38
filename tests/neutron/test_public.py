"""What nova asks of neutron in its own transactions."""

from typing import Any

import pytest

from cumulet.core.errors import ApiError, BadRequest, Conflict, Forbidden, NotFound
from cumulet.neutron import public
from cumulet.neutron.model import Port, PortWish
from tests.neutron.conftest import PEOPLE, Cloud

ALICE, BOB = PEOPLE["alice"], PEOPLE["bob"]


def create(cloud: Cloud, *wishes: PortWish, who: Any = ALICE, server: str = "vm", groups: Any = ()) -> list[Port]:
    with cloud.db.transaction() as tx:
        return public.create_server_ports(tx, who, server, "web", wishes, groups)


def test_a_server_and_its_ports(cloud: Cloud) -> None:
    network, subnet = cloud.network()
    cloud.update("alice", "subnet", subnet, dns_nameservers=["9.9.9.9"])
    mine = cloud.create("alice", "port", network_id=network)["id"]
    ports = create(
        cloud, PortWish(network_id=network), PortWish(port_id=mine), PortWish(network, fixed_ip="10.0.0.9")
    )
    assert [port.addresses[0].ip for port in ports] == ["10.0.0.3", "10.0.0.2", "10.0.0.9"]
    first = ports[0]
    assert (first.network_id, first.network_name, first.mtu) == (network, "net", 1450)
    assert (first.device_id, first.created_by_nova, first.wired, first.status) == ("vm", True, False, "DOWN")
    assert first.security_groups == ("default",)
    address = first.addresses[0]
    assert (address.cidr, address.gateway, address.dns, address.dhcp) == (
        "10.0.0.0/24",
        "10.0.0.1",
        ("9.9.9.9",),
        True,
    )
    assert ports[1].created_by_nova is False
    seen = cloud.get("alice", f"/ports/{first.id}")["port"]
    assert (seen["device_id"], seen["device_owner"], seen["dns_name"]) == ("vm", "compute:nova", "web")
    cloud.hinted()
    with cloud.db.transaction() as tx:
        public.bind_ports(tx, "vm", "c1")
    assert {key for topic, key in cloud.hinted() if topic == "neutron.ports.c1"} == {port.id for port in ports}
    with cloud.db.transaction() as tx:
        public.bind_ports(tx, "vm", "c1")
    assert cloud.hinted() == set()
    for boot, news in (("first", True), ("first", False), ("second", True)):
        cloud.good("host:c1", "POST", "/hosts/c1/ports", {"wired": {first.id: 1}, "boot_id": boot})
        assert (("nova.hosts.c1", "vm") in cloud.hinted()) is news
        with cloud.db.read() as tx:
            assert next(one for one in public.list_host_ports(tx, "c1")["vm"] if one.wired).wired_in == boot
    with cloud.db.read() as tx:
        assert [port.wired for port in public.list_server_ports(tx, ["vm", "other"])["vm"]].count(True) == 1
        assert set(public.list_host_ports(tx, "c1")) == {"vm"}
        assert public.list_host_ports(tx, "c2") == {}
        assert [group.name for group in public.list_security_groups(tx, "vm")] == ["default"]
    cloud.hinted()
    with cloud.db.transaction() as tx:
        public.release_ports(tx, "vm")
    assert ("neutron.ports.c1", mine) in cloud.hinted()
    left = cloud.get("alice", "/ports")["ports"]
    assert [(port["id"], port["device_id"], port["status"]) for port in left] == [(mine, "", "DOWN")]
    with cloud.db.read() as tx:
        assert public.list_server_ports(tx, ["vm"]) == {}


def test_attach_and_detach(cloud: Cloud) -> None:
    network, _ = cloud.network()
    with cloud.db.transaction() as tx:
        port = public.attach_port(tx, ALICE, "vm", "web", "c1", PortWish(network_id=network), ["default"])
    assert port.status == "BUILD"
    assert ("neutron.ports.c1", port.id) in cloud.hinted()
    with pytest.raises(NotFound), cloud.db.transaction() as tx:
        public.detach_port(tx, "other", port.id)
    with cloud.db.transaction() as tx:
        public.detach_port(tx, "vm", port.id)
    assert cloud.get("alice", "/ports")["ports"] == []


def test_groups_by_name_and_id(cloud: Cloud) -> None:
    network, _ = cloud.network()
    one = cloud.create("alice", "security_group", name="one")["id"]
    port = create(cloud, PortWish(network_id=network), groups=["one", one, "default"])[0]
    assert port.security_groups == ("default", "one")
    cloud.create("alice", "security_group", name="one")
    with pytest.raises(Conflict, match="Multiple"):
        create(cloud, PortWish(network_id=network), groups=["one"])
    with pytest.raises(NotFound):
        create(cloud, PortWish(network_id=network), groups=["none"])


def test_default_networks(cloud: Cloud) -> None:
    def names(who: Any) -> list[str]:
        with cloud.db.read() as tx:
            return public.default_networks(tx, who)

    assert names(ALICE) == []
    cloud.public_network()
    cloud.create("alice", "network", name="no subnet")
    mine, _ = cloud.network()
    assert (names(ALICE), names(BOB)) == ([mine], [])
    shared, _ = cloud.network("admin", shared=True)
    assert (names(ALICE), names(BOB)) == ([mine, shared], [shared])


def test_floating_ips_of_a_server(cloud: Cloud) -> None:
    outside, _ = cloud.public_network()
    network, subnet = cloud.network()
    router = cloud.create("alice", "router", external_gateway_info={"network_id": outside})["id"]
    cloud.good("alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    port = create(cloud, PortWish(network_id=network))[0]
    floating = cloud.create("alice", "floatingip", floating_network_id=outside, port_id=port.id)
    with cloud.db.read() as tx:
        found = public.list_server_ports(tx, ["vm"])["vm"][0]
    assert found.floating_ips == (("10.0.0.2", floating["floating_ip_address"]),)
    with cloud.db.transaction() as tx:
        public.release_ports(tx, "vm")
    assert cloud.get("alice", f"/floatingips/{floating['id']}")["floatingip"]["port_id"] is None


def test_what_is_refused(cloud: Cloud) -> None:
    network, _ = cloud.network()
    theirs, _ = cloud.network("bob")
    outside, _ = cloud.public_network()
    shared, _ = cloud.network("admin", shared=True, cidr="10.8.0.0/24")
    bare = cloud.create("alice", "network")["id"]
    foreign = cloud.create("bob", "port", network_id=theirs)["id"]
    used = cloud.create("alice", "port", network_id=network, device_id="other")["id"]
    cases: list[tuple[PortWish, type[ApiError]]] = [
        (PortWish(network_id=theirs), NotFound),
        (PortWish(network_id="nowhere"), NotFound),
        (PortWish(), NotFound),
        (PortWish(network_id=outside), Forbidden),
        (PortWish(network_id=bare), BadRequest),
        (PortWish(port_id=foreign), NotFound),
        (PortWish(port_id="nowhere"), NotFound),
        (PortWish(port_id=used), Conflict),
        (PortWish(network_id=network, fixed_ip="10.9.9.9"), BadRequest),
        (PortWish(network_id=network, fixed_ip="x"), BadRequest),
        (PortWish(network_id=network, fixed_ip="10.0.0.2"), Conflict),
        (PortWish(network_id=shared, fixed_ip="10.8.0.9"), Forbidden),
    ]
    for wish, kind in cases:
        with pytest.raises(kind):
            create(cloud, PortWish(network_id=network), wish)
    assert [port["id"] for port in cloud.get("alice", "/ports")["ports"]] == [used]
    create(cloud, PortWish(network_id=shared))
    cloud.good("admin", "PUT", "/quotas/red", {"quota": {"port": 2}})
    with pytest.raises(Conflict, match="Quota exceeded"):
        create(cloud, PortWish(network_id=network), server="late")


def test_a_servers_port_stays_the_servers(cloud: Cloud) -> None:
    network, _ = cloud.network()
    port = create(cloud, PortWish(network_id=network))[0]
    for change in ({"device_id": ""}, {"device_owner": ""}, {"binding:host_id": "c2"}):
        assert cloud.refused("admin", "PUT", f"/ports/{port.id}", {"port": change}) == (409, "PortInUse"), change
    cloud.update("alice", "port", port.id, name="eth0", device_id="vm")
    with cloud.db.transaction() as tx:
        public.bind_ports(tx, "vm", "c1")
    cloud.hinted()
    cloud.good("alice", "DELETE", f"/ports/{port.id}")
    assert {("nova.hosts.c1", "vm"), ("neutron.ports.c1", port.id)} <= cloud.hinted()
