"""Four nodes with real servers: the map, the wires between them, and that nothing reaches the database.

In the order of the file: one lab, which each story leaves as it found it.
"""

import re

import pytest

from cumulet.cli.lab import REFERENCE
from cumulet.core import topology as topologies
from cumulet.services import SERVICES
from tests.lab.rig import LabRig, Servers

pytestmark = pytest.mark.host
TOPOLOGY = topologies.load(REFERENCE)
NAMES = {service.name for service in SERVICES}
BROKER_PORTS = {5671, 5672}


def test_each_node_runs_the_services_of_the_map(lab: LabRig) -> None:
    for node in TOPOLOGY.nodes:
        running = lab.run(node.name, "ps", "-eo", "args=").splitlines()
        ours = sorted(line.strip() for line in running if line.strip() in NAMES)
        assert ours == sorted(service.name for service in topologies.services_of(node)), node.name
    assert lab.lab("exec", "compute2", "hostname").strip() == "compute2"


def test_no_other_node_can_reach_the_database(lab: LabRig) -> None:
    """What the controller listens on beyond loopback is its services' ports; the database's file is on its disk."""
    served = {service.port for service in SERVICES if service.port} | BROKER_PORTS
    for line in lab.run("controller", "ss", "-Hltn").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        assert address.startswith("127.") or address == "[::1]" or int(port) in served, line
    for node in ("network", "compute1", "compute2"):
        assert lab.run(node, "find", "/var/lib/cumulet", "-name", "*.sqlite*").strip() == ""
        assert "host_secret" not in lab.run(node, "cat", "/etc/cumulet/secrets.json")
        for database in (3306, 4567):
            probe = f"exec 3<>/dev/tcp/10.10.0.11/{database}"
            assert "refused" in lab.run(node, "bash", "-c", probe, check=False)


def test_servers_of_two_nodes_are_neighbours(lab: LabRig, servers: Servers) -> None:
    """DHCP, metadata (the ssh key) and the router are on the network node; floating IPs answer outside."""
    for name, other in (("one", "two"), ("two", "one")):
        assert lab.ssh(name, "hostname").strip() == name
        said = lab.ssh(name, "ping", "-c3", "-W2", servers[other]["private"])
        assert re.search(r"[1-3] (packets )?received", said), said
        assert lab.answers("outside", servers[name]["floating"])
    ends = {node.name: node.tunnel_address for node in TOPOLOGY.nodes}
    for node in ("network", "compute1", "compute2"):
        assert lab.tunnels(node) == {ends[other] for other in ("network", "compute1", "compute2") if other != node}
    assert lab.run("network", "ip", "netns").count("qrouter-") == 1
    assert lab.run("network", "ip", "netns").count("qdhcp-") == 1
    assert lab.run("compute1", "ip", "netns").strip() == ""


def test_nobody_from_the_public_network_gets_to_the_nodes(lab: LabRig, servers: Servers) -> None:
    said = lab.ssh("one", "nc -w 2 10.10.0.11 5000 < /dev/null && echo open", check=False)
    assert "open" not in said
