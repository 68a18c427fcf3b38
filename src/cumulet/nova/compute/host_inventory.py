"""What this host has to give, as libvirt and the kernel say."""

import os
import platform
from pathlib import Path

from cumulet.core.config import Config
from cumulet.nova.compute.connection import Connection
from cumulet.nova.model import STORE, Inventory

MIB, GIB = 1 << 20, 1 << 30


def read(connection: Connection, config: Config, virt_type: str, place: Path, store: str) -> Inventory:
    """``place``: where servers' disks are; ``store``: which shared file system that is, if it is one."""
    version, library = connection.call(lambda c: (c.getVersion(), c.getLibVersion()))
    space = os.statvfs(place)
    return Inventory(
        vcpus=os.cpu_count() or 1,
        memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB,
        disk_gb=space.f_blocks * space.f_frsize // GIB,
        virt_type=virt_type,
        hypervisor_version=version,
        cpu_model=_cpu_model() if virt_type == "kvm" else "qemu64",
        address=config.api.internal_bind,
        details={"architecture": platform.machine(), "libvirt_version": library, STORE: store},
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
