"""What happens to a compute node that loses its controller, or its power; and to the servers."""

import pytest

from tests.lab.rig import UNDISTURBED, LabRig, Servers
from tests.machine import wait_for

pytestmark = pytest.mark.host


def status(lab: LabRig, server: str) -> str:
    return str(lab.ask("server", "show", server)["status"])


def test_a_node_without_its_controller_goes_on_and_catches_up(lab: LabRig, servers: Servers) -> None:
    """It is shown down, its server loses no packet; what is ordered meanwhile is done when it is back."""
    one = servers["one"]
    with lab.pings(one["floating"]) as longest:
        lab.lab("cut", one["host"])
        lab.wait_agents(one["host"], alive=False)
    assert longest[0] < UNDISTURBED
    lab.openstack("server", "pause", "one")
    assert status(lab, "one") == "ACTIVE"
    assert lab.lab("cut", one["host"], "0") == f"{one['host']} is connected\n"
    wait_for(lambda: status(lab, "one") == "PAUSED", 60, "paused server")
    lab.wait_agents(one["host"], alive=True)
    lab.openstack("server", "unpause", "one")
    wait_for(lambda: lab.answers("outside", one["floating"]), 60, "answer of the server")


def test_after_a_power_cut_a_node_brings_its_servers_back(lab: LabRig, servers: Servers) -> None:
    one, two = servers["one"], servers["two"]
    before = lab.tunnels(two["host"])
    with lab.pings(one["floating"]) as longest:
        assert lab.lab("kill", two["host"]) == f"{two['host']} is off\n"
        assert not lab.answers("outside", two["floating"])
        assert "up after" in lab.lab("boot", two["host"])
        wait_for(lambda: lab.ssh("two", "hostname", check=False).strip() == "two", 120, "login on the server")
    assert longest[0] < UNDISTURBED
    lab.wait_agents(two["host"], alive=True)
    assert lab.tunnels(two["host"]) == before
