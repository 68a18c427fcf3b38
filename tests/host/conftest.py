"""The hosts of the hypervisor tests, one per test file."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.host.hypervisor_rig import Host, LibvirtRig, a_host
from tests.host.live_rig import two_hosts
from tests.machine import Machine


@pytest.fixture
def first_server(cloud: Machine) -> None:
    """The cloud's first server is there and answers, whatever other tests did to it."""
    cloud.cumulet("launch", "first")


@pytest.fixture(scope="module")
def libvirt_host() -> Iterator[Host]:
    _need_libvirt()
    with a_host() as host:
        yield host


@pytest.fixture(scope="module")
def libvirt_hosts() -> Iterator[tuple[tuple[Host, Host], str]]:
    """Two, and the network namespace of the second."""
    _need_libvirt()
    with two_hosts() as hosts:
        yield hosts


def _need_libvirt() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if missing := [tool for tool in ("ovs-vswitchd", "libvirtd", "qemu-img") if shutil.which(tool) is None]:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture
def libvirt_rig(libvirt_host: Host) -> Iterator[LibvirtRig]:
    """Leaves nothing of its servers behind."""
    rig = LibvirtRig(libvirt_host)
    try:
        yield rig
    finally:
        rig.sweep()
        rig.close()
