"""Services of every node are killed, in turn, database and broker too, while servers come and go; then nothing is
stuck and nothing is left.
"""

import json
import random

import pytest

from cumulet.cli.lab import REFERENCE
from cumulet.core import topology as topologies
from tests.lab.rig import LabRig, Servers
from tests.machine import wait_for

pytestmark = [pytest.mark.host, pytest.mark.chaos]
TOPOLOGY = topologies.load(REFERENCE)
VICTIMS = [(node.name, one.name) for node in TOPOLOGY.nodes for one in topologies.services_of(node)]
PARTS = [
    ("controller", "mariadbd"),
    ("controller", "rabbitmq"),
    ("compute1", "libvirtd"),
    ("compute2", "libvirtd"),
    ("network", "ovs-vswitchd"),
]
SEED = 20260101


def orphans(lab: LabRig) -> list[str]:
    """Rows of the database that belong to nothing: claims, ports, bindings."""
    found = json.loads(lab.run("controller", "cumulet", "doctor", "--json", check=False))
    return [one["found"] for one in found if one["about"] == "orphans" and one["level"] == "wrong"]


def settled(lab: LabRig, names: set[str]) -> bool:
    shown = {line["Name"]: line["Status"] for line in lab.ask("server", "list")}
    return {name for name in shown if name.startswith("c")} == names and set(shown.values()) <= {"ACTIVE"}


@pytest.mark.parametrize("round_", range(3))
def test_servers_come_and_go_while_everything_dies(lab: LabRig, servers: Servers, round_: int) -> None:
    before = {node: sorted(lab.left(node)) for node in ("compute1", "compute2")}
    chance = random.Random(SEED + round_)
    victims = [*VICTIMS, *PARTS]
    chance.shuffle(victims)
    names = {f"c{round_}-{number}" for number in range(3)}
    third = len(victims) // 3
    made = lab.start("controller", "sh", "-c", create(sorted(names)))
    for node, name in victims[:third]:
        lab.kill(node, name)
    said = made.communicate(timeout=300)[0]
    assert made.returncode == 0, said
    for node, name in victims[third : 2 * third]:
        lab.kill(node, name)
    wait_for(lambda: settled(lab, names), 240, "all servers ACTIVE")
    gone = lab.start("controller", "sh", "-c", delete(lab))
    for node, name in victims[2 * third :]:
        lab.kill(node, name)
    gone.communicate(timeout=300)
    wait_for(lambda: settled(lab, set()), 240, "all servers gone")
    for node, there in before.items():
        wait_for(lambda node=node, there=there: sorted(lab.left(node)) == there, 60, f"nothing left on {node}")  # type: ignore[misc]
    for name in ("one", "two"):
        wait_for(lambda name=name: lab.ssh(name, "hostname", check=False).strip() == name, 60, f"login on {name}")  # type: ignore[misc]
    wait_for(lambda: lab.start("controller", "cumulet", "where").wait(60) == 0, 60, "health of all that runs")
    assert orphans(lab) == []


def create(names: list[str]) -> str:
    """Calls that are repeated until they are answered: what was answered must come about."""
    words = "openstack server create --image cirros --flavor m1.nano --network private"
    return "; ".join(f"until {words} {name}; do sleep 1; done" for name in names)


def delete(lab: LabRig) -> str:
    """Twice where the first call was broken off."""
    found = [str(line["ID"]) for line in lab.ask("server", "list") if line["Name"].startswith("c")]
    return "; ".join(f"openstack server delete {one} || openstack server delete {one}" for one in found)
