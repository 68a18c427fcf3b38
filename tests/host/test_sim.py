"""``cumulet sim``: a small one, from its start to its end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cumulet.cli.simulate import DISKS, RUN

pytestmark = pytest.mark.host
CUMULET = (sys.executable, "-m", "cumulet.cli.main", "sim")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_hosts_come_servers_are_on_and_nothing_is_left() -> None:
    before = set(os.listdir("/sys/class/net")), Path("/proc/self/mountinfo").read_text()
    words = ["--hosts", "12", "--servers", "30", "--idle", "1", "--once", "--json"]
    found = json.loads(subprocess.run([*CUMULET, *words], stdout=subprocess.PIPE, check=True).stdout)
    assert (found["hosts"], found["servers"], found["listed"]) == (12, 30, 30)
    assert found["boot_100_s"] > 0
    assert not DISKS.exists()
    assert not RUN.exists()
    assert (set(os.listdir("/sys/class/net")), Path("/proc/self/mountinfo").read_text()) == before


@pytest.mark.parametrize("words", [["--hosts", "0"], ["--servers", "-1"], ["--hosts", "1", "--servers", "501"]])
def test_what_cannot_be_is_refused(words: list[str]) -> None:
    done = subprocess.run([*CUMULET, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "1 to 20000 hosts" in done.stderr
