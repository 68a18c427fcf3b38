"""The cables of a lab: addresses, names, and topologies that a lab cannot have."""

import pytest

from cumulet.cli import lab_wiring
from cumulet.cli.lab import REFERENCE
from cumulet.core import topology as topologies
from cumulet.core.errors import BadRequest
from cumulet.core.topology import Topology

NODE = '[[node]]\nname = "{}"\nroles = ["{}"]\naddress = "{}"\n'


def made(*nodes: tuple[str, str, str], more: str = "") -> Topology:
    return topologies.parse("\n".join(NODE.format(*node) for node in nodes) + more)


def test_the_reference_has_three_networks() -> None:
    topology = topologies.load(REFERENCE)
    wiring = lab_wiring.plan(topology)
    assert (str(wiring.management), wiring.outside) == ("10.10.0.0/24", "10.10.0.254")
    assert {name: [cable.device for cable in cables] for name, cables in wiring.cables.items()} == {
        "controller": ["mgmt0"],
        "network": ["mgmt0", "tun0", "ext0"],
        "compute1": ["mgmt0", "tun0"],
        "compute2": ["mgmt0", "tun0"],
    }
    ends = [cable.end for cables in wiring.cables.values() for cable in cables]
    assert len(set(ends)) == len(ends)
    assert topology.cloud.lab


def test_the_tunnels_have_room_for_their_own_headers() -> None:
    wiring = lab_wiring.plan(topologies.load(REFERENCE))
    lines = list(lab_wiring.cable_commands(wiring, "compute1", 77, 1500))
    assert "link add tun3 mtu 1550 type veth peer name tun0 mtu 1550 netns 77" in lines
    assert "link add mgmt3 mtu 1500 type veth peer name mgmt0 mtu 1500 netns 77" in lines


def test_only_controllers_have_a_way_to_floating_ips() -> None:
    topology = topologies.load(REFERENCE)
    wiring = lab_wiring.plan(topology)
    routes = {
        name: [line for line in lab_wiring.node_commands(wiring, topology, name) if line.startswith("route")]
        for name in wiring.cables
    }
    assert routes.pop("controller") == ["route add 172.24.4.0/24 via 10.10.0.254"]
    assert list(routes.values()) == [[], [], []]


def test_nodes_that_are_far_apart_share_a_wider_network() -> None:
    assert str(lab_wiring.spanning(["10.0.1.1", "10.0.2.1"])) == "10.0.0.0/22"
    assert str(lab_wiring.spanning(["fd00::1", "fd00::2"])) == "fd00::/64"


def test_the_machine_outside_takes_no_nodes_address() -> None:
    topology = made(("a", "controller", "10.0.0.254"), ("b", "compute", "10.0.0.253"))
    assert lab_wiring.plan(topology).outside == "10.0.0.252"


@pytest.mark.parametrize(
    ("topology", "words"),
    [
        (made(("a", "controller", "172.24.4.9")), "must not overlap"),
        (made(("a", "controller", "10.0.0.1"), ("b", "compute", "fd00::1")), "one IP version"),
        (
            made(
                ("a", "controller", "10.0.0.1"), ("b", "network", "10.0.0.2"), more='external_interface = "mgmt0"'
            ),
            "node b: in a lab mgmt0",
        ),
    ],
    ids=["overlap", "versions", "device"],
)
def test_what_a_lab_cannot_have_is_said_before_anything_is_made(topology: Topology, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        lab_wiring.plan(topology)
