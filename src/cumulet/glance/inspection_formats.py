"""What oslo.utils' inspectors let pass and this cloud does not: one function per format, pure.

Each ``flaw_of_`` gets the format's inspector and the ends of the stream, and returns what is wrong, or "".
Sources: QEMU's docs/interop/qcow2.txt and block/vmdk.c, the VHD, VHDX and VDI specifications.
"""

import re
import struct
from typing import Any

HEAD, TAIL = 64 * 1024, 512
VHD_FOOTER = 512

# qcow2: QEMU's own bounds; beyond them an image is made to exhaust whoever opens it.
LARGEST_L1_BYTES = 32 << 20
LARGEST_REFCOUNT_TABLE_BYTES = 8 << 20
MOST_SNAPSHOTS = 1024
_QCOW2_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_QCOW2_EXTERNAL_DATA, _QCOW2_BACKING_FORMAT = 0x44415441, 0xE2792ACA

_VMDK_EXTENT = re.compile(r'(rw|rdonly) \d+ sparse "[^"/\\]+"')
_VMDK_NO_PARENT = "ffffffff"
_VHDX_PARENT_LOCATOR = bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c")
_VHD_FIXED, _VHD_DYNAMIC = 2, 3
_VDI_DYNAMIC, _VDI_FIXED = 1, 2

_MAGICS = {
    b"QFI\xfb": "qcow",
    b"QED\0": "qed",
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"# Disk DescriptorFile": "vmdk",
    b"conectix": "vhd",
    b"vhdxfile": "vhdx",
    b"LUKS\xba\xbe": "luks",
    b"WithoutFreeSpace": "parallels",
    b"WithouFreSpacExt": "parallels",
    b"Bochs Virtual HD Image": "bochs",
    b"#!/bin/sh\n#V2.0 Format\n": "cloop",
}


class Ends:
    """The beginning and the end of a stream, and its length."""

    def __init__(self) -> None:
        self.head, self.tail, self.size = b"", b"", 0

    def feed(self, piece: bytes) -> None:
        if len(self.head) < HEAD:
            self.head += piece[: HEAD - len(self.head)]
        self.tail = (self.tail + piece[-TAIL:])[-TAIL:]
        self.size += len(piece)


def hidden_format(ends: Ends) -> str:
    """The format whose mark the ends carry, however short or broken the rest is; "" for none."""
    for magic, name in _MAGICS.items():
        if ends.head.startswith(magic):
            return name
    if ends.tail[:8] == b"conectix":
        return "vhd"
    return "dmg" if ends.tail[:4] == b"koly" else ""


def flaw_of_qcow2(inspector: Any, ends: Ends) -> str:
    if len(ends.head) < 104:
        return "it ends within its header"
    header = _QCOW2_HEADER.unpack_from(ends.head)
    _, version, _, backing_size, cluster_bits, _, encryption, l1_size, l1_at, refcounts_at, refcount_clusters = (
        header[:11]
    )
    snapshots, snapshots_at = header[11:]
    tables = (
        (l1_at, l1_size * 8),
        (refcounts_at, refcount_clusters << min(cluster_bits, 21)),
        (snapshots_at, 1 if snapshots else 0),
    )
    problems = {
        "a backing file": backing_size != 0,
        "a cluster size out of bounds": not 9 <= cluster_bits <= 21,
        "encryption": encryption != 0,
        "an L1 table out of bounds": l1_size * 8 > LARGEST_L1_BYTES,
        "a refcount table out of bounds": tables[1][1] > LARGEST_REFCOUNT_TABLE_BYTES,
        "too many snapshots": snapshots > MOST_SNAPSHOTS,
        "tables beyond its end": any(at + length > ends.size for at, length in tables if length),
        "the mark of corruption": version == 3 and bool(ends.head[79] & 2),
        "an extension that names a file": version == 3 and bool(_qcow2_extensions(ends.head) & {
            _QCOW2_EXTERNAL_DATA, _QCOW2_BACKING_FORMAT
        }),
    }  # fmt: skip
    return ", ".join(f"it has {problem}" for problem, there in problems.items() if there)


def _qcow2_extensions(head: bytes) -> set[int]:
    """The kinds of the header extensions that lie within ``head``."""
    at = int.from_bytes(head[100:104], "big")
    found = set()
    while at + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, at)
        if kind == 0:
            break
        found.add(kind)
        at += 8 + (length + 7) // 8 * 8
    return found


def flaw_of_vmdk(inspector: Any, ends: Ends) -> str:
    """One sparse extent, in this very file, on top of nothing; QEMU follows a parent's name without asking."""
    text: str = inspector.desc_text or ""
    lines = [line.strip() for line in text.split("\n")]
    extents = [line for line in lines if line.startswith(("rw ", "rdonly ", "noaccess "))]
    parents = [line.partition("=")[2].strip() for line in lines if line.startswith("parentcid")]
    if not ends.head.startswith(b"KDMV"):
        return "it is a descriptor without data"
    if int.from_bytes(ends.head[12:20], "little") == 0:
        return "its header has no capacity"
    if len(extents) != 1 or not _VMDK_EXTENT.fullmatch(extents[0]):
        return "it is not one sparse extent"
    if "parentfilename" in text or any(parent != _VMDK_NO_PARENT for parent in parents):
        return "it has a parent"
    return ""


def flaw_of_vhd(inspector: Any, ends: Ends) -> str:
    kind = int.from_bytes(ends.head[60:64], "big")
    return "" if kind == _VHD_DYNAMIC else f"it is of kind {kind}, neither fixed nor dynamic"


def is_fixed_vhd(ends: Ends) -> bool:
    """A fixed VHD is a raw disk with a footer behind it that gives the disk's size."""
    footer = ends.tail
    return (
        len(footer) == VHD_FOOTER
        and footer.startswith(b"conectix")
        and int.from_bytes(footer[60:64], "big") == _VHD_FIXED
        and int.from_bytes(footer[48:56], "big") == ends.size - VHD_FOOTER
    )


def flaw_of_vhdx(inspector: Any, ends: Ends) -> str:
    if not inspector.has_region("metadata") or not inspector.has_region("vds"):
        return "its metadata cannot be found"
    if _VHDX_PARENT_LOCATOR in bytes(inspector.region("metadata").data):
        return "it has a parent"
    return ""


def flaw_of_vdi(inspector: Any, ends: Ends) -> str:
    kind = int.from_bytes(ends.head[0x4C:0x50], "little")
    return "" if kind in (_VDI_DYNAMIC, _VDI_FIXED) else f"it is of kind {kind}, neither fixed nor dynamic"
