"""Disks that become larger, come from another host, or are kept as they were while a resize is on trial.

A disk from another host is an overlay like ours.  What it says of the file beneath it is written over with what is
right here, before anything reads that; it may name no other file.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from cumulet.core.errors import Terminal
from cumulet.nova.compute import spare_disks
from cumulet.nova.compute.file_gifts import DISK, EPHEMERAL
from cumulet.nova.compute.image_cache import Base
from cumulet.nova.compute.tools import qemu_img, run_tool
from cumulet.nova.model import ServerIntent

GIB = 1 << 30
KEPT = (DISK, EPHEMERAL)
COPY_SECONDS = 3600
_HOLE = bytes(1 << 20)
_SIZE_AT, _MAGIC = 24, b"QFI\xfb"
_FEATURES = 0b10001  # a guest that ended without notice, and clusters in parts
Give = Callable[[Path], None]
Pull = Callable[[str, Callable[[bytes], object]], bool]


def adopt(place: Path, server: ServerIntent, base: Base, pull: Pull, give: Give) -> None:
    """The disks of a server that comes from another host, whole and grown; the root disk appears last."""
    if (server.ephemeral_gb and not (place / EPHEMERAL).exists()) and _pulled(place, EPHEMERAL, pull):
        give(place / f"{EPHEMERAL}.new")
        (place / f"{EPHEMERAL}.new").rename(place / EPHEMERAL)
    if not _pulled(place, DISK, pull):
        raise Terminal("The server's disk is not on the host that it comes from any more.")
    partial = place / f"{DISK}.new"
    _check_features(partial)
    qemu_img("rebase", "-q", "-u", "-f", "qcow2", "-F", base.format, "-b", base.path, partial)
    give(partial)
    fit(place, server, give, partial)
    partial.rename(place / DISK)


def _check_features(path: Path) -> None:
    """Terminal unless it is a qcow2 of the kind that we make; one with its data in another file is none."""
    with path.open("rb") as file:
        header = file.read(80)
    good = len(header) == 80 and header[:4] == _MAGIC and struct.unpack_from(">I", header, 4)[0] == 3
    if not good or struct.unpack_from(">Q", header, 72)[0] & ~_FEATURES:
        raise Terminal("The server's disk is damaged on the host that it comes from.")


def _pulled(place: Path, name: str, pull: Pull) -> bool:
    """A file beside the one that it is to become, with holes where there are only zeros."""
    partial = place / f"{name}.new"
    partial.unlink(missing_ok=True)
    with partial.open("xb") as file:
        found = pull(name, lambda piece: _write_sparse(file, piece))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    if not found:
        partial.unlink()
    return found


def _write_sparse(file: BinaryIO, piece: bytes) -> None:
    if piece == _HOLE[: len(piece)]:
        file.seek(len(piece), os.SEEK_CUR)
    else:
        file.write(piece)


def fit(place: Path, server: ServerIntent, give: Give, disk: Path | None = None) -> None:
    """The disks as large as the flavor says; swap space anew.  Nothing shrinks."""
    root, size = disk or place / DISK, server.root_gb * GIB
    before = _virtual_size(root)
    if size and size < before:
        raise Terminal("Resize error: Unable to resize disk down.")
    if size > before:
        qemu_img("resize", "-q", "-f", "qcow2", root, str(size))
    ephemeral = place / EPHEMERAL
    if ephemeral.exists() and ephemeral.stat().st_size < server.ephemeral_gb * GIB:
        os.truncate(ephemeral, server.ephemeral_gb * GIB)
    (place / "swap").unlink(missing_ok=True)
    spare_disks.make(place, server, give)


def measure(place: Path) -> dict[str, int]:
    """How large the disks are to the guest, by name."""
    spares = {name: path.stat().st_size for name in spare_disks.NAMES if (path := place / name).exists()}
    return {DISK: _virtual_size(place / DISK)} | spares


def _virtual_size(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(_SIZE_AT)
        return int(struct.unpack(">Q", file.read(8))[0])


def keep(place: Path, give: Give) -> None:
    """Copies of the disks as they are now; those that are there already stay as they are."""
    for name in KEPT:
        source, kept, partial = place / name, place / f"{name}.before", place / f"{name}.before.new"
        if source.exists() and not kept.exists():
            partial.unlink(missing_ok=True)
            run_tool("cp", "--sparse=always", "--reflink=auto", source, partial, seconds=COPY_SECONDS)
            give(partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.rename(kept)


def restore(place: Path, server: ServerIntent, give: Give) -> None:
    """The disks as they were kept; no effect if none are."""
    for name in reversed(KEPT):
        kept = place / f"{name}.before"
        if kept.exists():
            kept.rename(place / name)
    if server.ephemeral_gb == 0:
        (place / EPHEMERAL).unlink(missing_ok=True)
    (place / "swap").unlink(missing_ok=True)
    spare_disks.make(place, server, give)


def forget(place: Path) -> None:
    for name in KEPT:
        (place / f"{name}.before").unlink(missing_ok=True)
