"""Two network nodes share routers and DHCP; one of them is lost, or only thinks that it is alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import made
from tests.lab.rig import UNDISTURBED, LabRig
from tests.machine import wait_for

pytestmark = [pytest.mark.host, pytest.mark.chaos]
NODE = '[[node]]\nname = "{0}"\nroles = ["{1}"]\naddress = "10.10.0.{2}"\ntunnel_address = "10.20.0.{2}"\n'
TOPOLOGY = """[cloud]
lab = true
[agents]
heartbeat_seconds = 1.0
down_seconds = 5.0
failover_seconds = 5.0
""" + "\n".join(
    (
        '[[node]]\nname = "controller"\nroles = ["controller"]\naddress = "10.10.0.11"\n',
        NODE.format("network1", "network", 21) + 'external_interface = "ext0"\n',
        NODE.format("network2", "network", 22) + 'external_interface = "ext0"\n',
        NODE.format("compute1", "compute", 31),
    )
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabRig]:
    file: Path = tmp_path_factory.mktemp("lab") / "cloud.toml"
    file.write_text(TOPOLOGY)
    with made("--file", str(file)) as rig:
        rig.launch("first")
        yield rig


def keeper(lab: LabRig) -> str:
    """Which network node has the router."""
    router = lab.ask("router", "list")[0]["ID"]
    (agent,) = lab.ask("network", "agent", "list", "--router", router)
    return str(agent["Host"])


def spaces(lab: LabRig, node: str, kind: str) -> int:
    return lab.run(node, "ip", "netns").count(kind)


def test_a_router_is_carried_on_when_its_node_loses_power(shared: LabRig) -> None:
    address, before = shared.servers()["first"]["floating"], keeper(shared)
    other = {"network1": "network2", "network2": "network1"}[before]
    with shared.pings(address) as longest:
        shared.lab("kill", before)
        wait_for(lambda: keeper(shared) == other, 120, "router on the other node")
        wait_for(lambda: shared.answers("outside", address), 60, "answer through the other node")
    print(f"\npower cut of the router's node: {longest[0]:.1f} s without service")
    assert shared.ssh("first", "hostname").strip() == "first"
    with shared.pings(address) as longest:
        shared.lab("boot", before)
        shared.wait_agents(before, alive=True)
        wait_for(lambda: spaces(shared, before, "qrouter-") == 0, 60, "end of the old router")
    assert longest[0] < UNDISTURBED
    assert spaces(shared, other, "qdhcp-") == 1


def test_a_node_that_only_lost_its_controller_gives_way(shared: LabRig) -> None:
    """It still answers ARP with the router's addresses, until it hears that somebody else has them."""
    address, before = shared.servers()["first"]["floating"], keeper(shared)
    other = {"network1": "network2", "network2": "network1"}[before]
    with shared.pings(address) as longest:
        shared.lab("cut", before)
        wait_for(lambda: keeper(shared) == other, 120, "router on the other node")
        wait_for(lambda: shared.answers("outside", address), 60, "answer through the other node")
    print(f"\nmanagement of the router's node cut: {longest[0]:.1f} s without service")
    shared.run("outside", "ip", "neigh", "flush", "dev", "br-ext")
    with shared.pings(address) as longest:
        for _ in range(10):
            shared.run("outside", "ip", "neigh", "flush", "dev", "br-ext")
            assert shared.ssh("first", "hostname").strip() == "first"
    assert longest[0] < UNDISTURBED
    with shared.pings(address) as longest:
        shared.lab("cut", before, "0")
        shared.wait_agents(before, alive=True)
        wait_for(lambda: spaces(shared, before, "qrouter-") == 0, 60, "end of the old router")
    assert longest[0] < UNDISTURBED
