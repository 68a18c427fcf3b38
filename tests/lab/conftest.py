"""One lab for the whole run."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.rig import LabRig

TOOLS = ("ovs-vswitchd", "libvirtd", "qemu-system-x86_64", "unshare")


@pytest.fixture(scope="session")
def lab() -> Iterator[LabRig]:
    if os.geteuid() != 0 or any(shutil.which(tool) is None for tool in TOOLS):
        pytest.skip("needs root and real parts")
    rig = LabRig()
    before = set(os.listdir("/sys/class/net")), Path("/proc/self/mountinfo").read_text()
    try:
        print(rig.up())
        yield rig
    finally:
        rig.lab("down")
        assert rig.traces() == []
        assert (set(os.listdir("/sys/class/net")), Path("/proc/self/mountinfo").read_text()) == before
