"""``cumulet chaos`` where there are servers of others: it finds nothing, leaves nothing, and sees a leak."""

import pytest

from cumulet.cli import lab as labs
from cumulet.cli.lab_chaos import LabCampaign
from tests.lab.rig import LabRig, Servers

pytestmark = [pytest.mark.host, pytest.mark.chaos]
STRAY = "11111111-1111-4111-8111-111111111111"


def test_nothing_is_stuck_leaked_or_lost(lab: LabRig, servers: Servers) -> None:
    report = LabCampaign(labs.find(lab.name), 20260101).play(8)
    assert report.problems == []
    assert report.rounds == 8
    assert set(lab.servers()) == set(servers)


def test_what_is_left_on_a_node_is_seen(lab: LabRig, servers: Servers) -> None:
    campaign = LabCampaign(labs.find(lab.name), 1)
    assert campaign.problems() == []
    lab.run("compute1", "mkdir", f"/var/lib/cumulet/servers/{STRAY}")
    lab.run("compute1", "ip", "tuntap", "add", "tap11111111-11", "mode", "tap")
    lab.run("network", "ip", "netns", "add", f"qdhcp-{STRAY}")
    assert campaign.problems() == [
        f"leaked: namespace qdhcp-{STRAY} on network",
        f"leaked: files of server {STRAY} on compute1",
        "leaked: device tap11111111-11 on compute1",
    ]
    lab.run("network", "ip", "netns", "delete", f"qdhcp-{STRAY}")
    lab.run("compute1", "ip", "tuntap", "del", "tap11111111-11", "mode", "tap")
    lab.run("compute1", "rmdir", f"/var/lib/cumulet/servers/{STRAY}")
