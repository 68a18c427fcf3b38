"""The disks that a flavor gives beside the root disk: an empty file system (``ephemeral``), and swap space.

They are sparse files in the server's directory.  Each appears complete, by rename, before the root disk does, is
made anew with it, and goes with it.  No image is made of them.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cumulet.nova.compute.tools import run_tool
from cumulet.nova.model import ServerIntent

GIB, MIB = 1 << 30, 1 << 20
NAMES = ("ephemeral", "swap")
"""In the order in which the guest sees them."""


def make(place: Path, server: ServerIntent, give: Callable[[Path], None]) -> None:
    """Those of ``server`` that are not there; ``give`` lets QEMU use a file."""
    for name, size, words in _wanted(server):
        path, partial = place / name, place / f"{name}.new"
        if path.exists():
            continue
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:
            file.truncate(size)
        run_tool(*words, partial)
        give(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(path)


def _wanted(server: ServerIntent) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Name, bytes, and the tool that prepares the file."""
    if server.ephemeral_gb:
        yield "ephemeral", server.ephemeral_gb * GIB, ("mkfs.ext4", "-q", "-F", "-L", "ephemeral0")
    if server.swap_mb:
        yield "swap", server.swap_mb * MIB, ("mkswap",)


def find(place: Path) -> list[tuple[str, str]]:
    """Paths of those that are there, with the serial number by which the guest knows each."""
    return [(str(place / name), name) for name in NAMES if (place / name).exists()]
