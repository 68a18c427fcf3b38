"""One lab for the whole run, with two servers; stories leave it as they found it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.rig import LabRig, Servers

TOOLS = ("ovs-vswitchd", "libvirtd", "qemu-system-x86_64", "unshare")


@pytest.fixture(scope="session")
def lab() -> Iterator[LabRig]:
    with made() as rig:
        yield rig


@pytest.fixture(scope="session")
def servers(lab: LabRig) -> Servers:
    """Two, each on its own compute node."""
    assert all(lab.tunnels(node) == set() for node in ("compute1", "compute2")), "nobody to reach yet"
    lab.launch("one", "two")
    found = lab.servers()
    assert {line["host"] for line in found.values()} == {"compute1", "compute2"}
    return found


@contextmanager
def made(*options: str) -> Iterator[LabRig]:
    """A lab, ended without a trace."""
    if os.geteuid() != 0 or any(shutil.which(tool) is None for tool in TOOLS):
        pytest.skip("needs root and real parts")
    rig = LabRig(*options)
    before = set(os.listdir("/sys/class/net")), Path("/proc/self/mountinfo").read_text()
    try:
        print(rig.up())
        yield rig
    finally:
        rig.lab("down")
    assert rig.traces() == []
    assert (set(os.listdir("/sys/class/net")), Path("/proc/self/mountinfo").read_text()) == before
