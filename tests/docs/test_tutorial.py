"""The tutorial's commands, in order, as they stand there, against a real cloud with the unmodified client."""

import re
import shlex

import pytest

from tests.docs.pages import ROOT, blocks
from tests.machine import Machine, wait_for

pytestmark = pytest.mark.compat
ADDRESS = "172.24.4.4"
"""The floating IP in the text; here it is another one."""


def test_the_tutorial(cloud: Machine) -> None:
    floating = ""
    for line in commands():
        words = line.replace("~/", "/run/root/").replace(ADDRESS, floating or ADDRESS)
        out = cloud.run("bash", "-c", words, check="ssh " not in words)
        if found := re.search(r"floating_ip_address\s*\|\s*(\S+)", out):
            floating = found[1]
        wait(cloud, words)
    assert "demo" not in cloud.openstack("server", "list")


def commands() -> list[str]:
    """What the reader types at the client and at ssh."""
    lines = [line for block in blocks((ROOT / "docs" / "tutorial.md").read_text(), "sh") for line in block]
    return [line for line in lines if shlex.split(line)[0] in ("openstack", "ssh", "ssh-keygen")]


def wait(cloud: Machine, words: str) -> None:
    """What the text tells the reader to wait for."""
    if "console log show" in words:
        wait_for(lambda: "BOOT-DONE" in cloud.run("bash", "-c", words, check=False), 180, "booted server")
    elif words.startswith("ssh "):
        wait_for(lambda: cloud.run("bash", "-c", words, check=False).strip().endswith("demo"), 60, "ssh")
    elif "server stop" in words or "server start" in words:
        status = "SHUTOFF" if "stop" in words else "ACTIVE"
        wait_for(lambda: cloud.ask("server", "show", "demo")["status"] == status, 90, status)
    elif "server show big" in words:
        wait_for(lambda: "No valid host" in cloud.run("bash", "-c", words, check=False), 60, "fault")
