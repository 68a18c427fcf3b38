"""A real cloud whose database is lost, and found again: guests talk all the time."""

import pytest

from tests.host.test_cloud import PING, addresses, healthy, lost, pid_in, status, wrong
from tests.machine import Machine, wait_for

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("first_server")]
DATABASE, ASIDE = "/var/lib/cumulet/db", "/var/lib/cumulet-db-aside"
AGENT = "neutron-openvswitch-agent"


def restart(cloud: Machine, command: str) -> None:
    """Do something to the database, and start every service anew."""
    former, agent = pid_in(cloud, "node.pid"), status(cloud)[AGENT]["pid"]
    cloud.run("bash", "-c", command)
    cloud.run("kill", "-9", former)
    wait_for(lambda: pid_in(cloud, "node.pid") not in ("", former), 15, "a new parent")
    wait_for(lambda: healthy(cloud) and status(cloud)[AGENT]["pid"] != agent, 90, "health after the restart")


def said(cloud: Machine) -> int:
    """How often the agent has said that it leaves strangers alone."""
    return cloud.run("cat", f"/var/log/cumulet/{AGENT}.log").count("wired by another database")


def test_a_lost_database_cuts_nobody_off(cloud: Machine) -> None:
    fixed, floating = addresses(cloud, "first")["private"]
    network = cloud.ask("network", "show", "private")["id"]
    inside = cloud.start("ip", "netns", "exec", f"qdhcp-{network}", *PING, fixed)
    outside = cloud.start(*PING, floating)
    before = said(cloud)
    restart(cloud, f"mkdir {ASIDE}; mv {DATABASE}/cumulet.sqlite* {ASIDE}/")
    wait_for(lambda: said(cloud) > before, 60, "strangers")
    about = [finding["found"] for finding in wrong(cloud)]
    assert [found for found in about if "is ours, and no server of this host" in found]
    assert [found for found in about if "on the switch belongs to no port" in found]
    restart(cloud, f"rm {DATABASE}/cumulet.sqlite*; mv {ASIDE}/* {DATABASE}/; rmdir {ASIDE}")
    wait_for(lambda: cloud.ask("server", "show", "first")["status"] == "ACTIVE" or None, 60, "first server")
    wait_for(lambda: wrong(cloud) == [], 60, "nothing that is wrong")
    assert lost(inside, cloud) == 0  # ends every ping
    assert " 0% packet loss" in outside.communicate(timeout=20)[0]
