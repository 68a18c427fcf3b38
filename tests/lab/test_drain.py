"""Nodes are emptied by ``cumulet node drain``, and one of them is taken away; whoever uses the servers goes on."""

from collections.abc import Iterator

import pytest

from tests.lab.conftest import made
from tests.lab.rig import LabRig
from tests.lab.test_live_migration import outcome, server_id, status
from tests.machine import wait_for

pytestmark = [pytest.mark.host, pytest.mark.chaos]
NAMES = ("one", "two")
MOST_LOST = 30
"""Of ten pings a second: a busy machine loses 4 to 9 of them by a live migration, a server that boots many more."""


@pytest.fixture(scope="module")
def crowded() -> Iterator[LabRig]:
    """Both servers are on compute2."""
    with made() as rig:
        take(rig, "compute1", "--disable")
        rig.launch(*NAMES)
        take(rig, "compute1", "--enable")
        yield rig


def take(lab: LabRig, node: str, wish: str) -> None:
    lab.openstack("compute", "service", "set", wish, node, "nova-compute")


def boot_id(lab: LabRig, name: str) -> str:
    return lab.ssh(name, "cat", "/proc/sys/kernel/random/boot_id")


def test_what_runs_goes_as_it_runs_and_what_is_off_with_its_disk(crowded: LabRig) -> None:
    boot, floating = boot_id(crowded, "one"), crowded.servers()["one"]["floating"]
    crowded.ssh("two", "echo it-was-here > kept; sync")
    crowded.openstack("server", "stop", "two")
    wait_for(lambda: status(crowded, "two")[0] == "SHUTOFF", 120, "the server off")
    with crowded.lost("outside", floating) as lost:
        said = crowded.run("controller", "cumulet", "node", "drain", "compute2")
    print(f"\n{said}lost of 10 pings a second: {lost}")
    assert (status(crowded, "one"), status(crowded, "two")) == (("ACTIVE", "compute1"), ("SHUTOFF", "compute1"))
    assert [outcome(crowded, server_id(crowded, name)) for name in NAMES] == ["completed", "confirmed"]
    assert (boot_id(crowded, "one"), lost[0] <= MOST_LOST) == (boot, True)
    wait_for(lambda: crowded.left("compute2") == [], 60, "nothing left on compute2")
    crowded.openstack("server", "start", "two")
    wait_for(lambda: crowded.ssh("two", "cat", "kept", check=False).strip() == "it-was-here", 120, "its disk")


def test_a_drained_node_can_be_removed(crowded: LabRig) -> None:
    take(crowded, "compute2", "--enable")
    boots = {name: boot_id(crowded, name) for name in NAMES}
    one, two = (crowded.servers()[name]["floating"] for name in NAMES)
    refused = crowded.run("controller", "cumulet", "node", "remove", "compute1", check=False)
    assert "compute1 is not empty" in refused
    with crowded.lost("outside", one) as lost_of_one, crowded.lost("outside", two) as lost_of_two:
        said = crowded.run("controller", "cumulet", "node", "drain", "compute1")
    print(f"\n{said}lost of 10 pings a second: {lost_of_one}, {lost_of_two}")
    assert {name: status(crowded, name) for name in NAMES} == dict.fromkeys(NAMES, ("ACTIVE", "compute2"))
    assert {name: boot_id(crowded, name) for name in NAMES} == boots
    assert max(*lost_of_one, *lost_of_two) <= MOST_LOST
    wait_for(lambda: crowded.left("compute1") == [], 60, "nothing left on compute1")
    assert "compute1 lives" in crowded.run("controller", "cumulet", "node", "remove", "compute1", check=False)
    crowded.lab("kill", "compute1")
    crowded.wait_agents("compute1", alive=False)
    assert "compute1 is forgotten" in crowded.run("controller", "cumulet", "node", "remove", "compute1")
    agents = [*crowded.ask("network", "agent", "list"), *crowded.ask("compute", "service", "list")]
    assert {one["Host"] for one in agents} == {"controller", "network", "compute2"}
    assert [one["Hypervisor Hostname"] for one in crowded.ask("hypervisor", "list")] == ["compute2"]
    for name in NAMES:
        assert crowded.ssh(name, "hostname").strip() == name
