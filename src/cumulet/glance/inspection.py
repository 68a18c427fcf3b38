"""Is an image what it says it is, and is it safe to open?

An image is bytes from a stranger that a hypervisor will interpret.  A format that can name other files (a qcow2
backing or data file, a VMDK extent) would have the host read those; a format that is not the declared one would
be interpreted as what it is not.  So glance-api looks at every byte as it is uploaded, and nova-compute looks
again at what it fetched: use ``Inspection`` on a stream, ``check`` on a file.

The formats are told apart by oslo.utils' inspectors, which keep at most some hundred KiB and never call a tool.
``_STRICTER`` adds, per format, what they let pass.  No database here: agents import this.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from oslo_utils.imageutils import format_inspector

from cumulet.core.errors import Terminal
from cumulet.glance import inspection_formats as formats

PIECE = 1 << 20
"""Bytes looked at in one step.  The inspectors follow a pointer only into what comes in the next steps, so this
is what VHDX keeps its headers apart by; and the first step holds all that a VMDK's text may be.
"""
LARGEST_VIRTUAL_SIZE = (1 << 63) - 1
RAW_FORMATS = frozenset({"raw", "ami", "ari", "aki"})
"""Formats without a header: their content must look like no other format."""

_STRICTER: dict[str, Callable[[Any, formats.Ends], str]] = {
    "qcow2": formats.flaw_of_qcow2,
    "vmdk": formats.flaw_of_vmdk,
    "vhd": formats.flaw_of_vhd,
    "vhdx": formats.flaw_of_vhdx,
    "vdi": formats.flaw_of_vdi,
}


# What an inspector raises over content that is not, or is a broken piece of, its format.
_UNREADABLE = (
    format_inspector.ImageFormatError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


class UnsafeImage(Terminal):
    """The content must not be used; the text says why and may be shown to the user."""


class Inspected(msgspec.Struct, frozen=True):
    format: str  # what the content is: the declared format, or 'raw'
    size: int
    virtual_size: int  # of the disk that a server would see


class Inspection:
    """Looks at an image while it passes: ``feed`` each piece in order, then ``finish``.

    Constant memory.  UnsafeImage may be raised at any point, as soon as the content is known to be bad.
    """

    def __init__(self, disk_format: str) -> None:
        if disk_format not in RAW_FORMATS and disk_format not in (*_STRICTER, "iso"):
            raise UnsafeImage(f"disk format {disk_format!r} cannot be checked, so it is not accepted")
        self._declared = disk_format
        self._inspectors = {name: kind() for name, kind in format_inspector.ALL_FORMATS.items() if name != "raw"}
        self._lost: dict[str, Exception] = {}  # inspectors that could not read on, and why
        self._ends = formats.Ends()
        self._held: list[bytes] = []
        self._held_bytes = 0

    def feed(self, piece: bytes) -> None:
        """Look at the next bytes, however many; they are held until there are enough for a step."""
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes < PIECE:
            return
        held = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        whole = len(held) - len(held) % PIECE
        for at in range(0, whole, PIECE):
            self._step(held[at : at + PIECE])
        rest = held[whole:]
        self._held, self._held_bytes = [rest] if rest else [], len(rest)

    def finish(self) -> Inspected:
        """The verdict on everything that was fed."""
        if self._held_bytes:
            self._step(b"".join(self._held))
        for inspector in self._inspectors.values():
            inspector.finish()
        if self._declared in RAW_FORMATS:
            return self._finish_raw()
        return self._finish_declared()

    def _step(self, piece: bytes) -> None:
        self._ends.feed(piece)
        for name, inspector in self._inspectors.items():
            if name not in self._lost:
                try:
                    inspector.eat_chunk(piece)
                except _UNREADABLE as error:
                    self._lost[name] = error

    def _finish_raw(self) -> Inspected:
        found = self._found() - {"gpt"}  # a partition table is what a raw disk begins with
        other = ", ".join(sorted(found)) or formats.hidden_format(self._ends)
        if other:
            raise UnsafeImage(f"Image disk_format {self._declared} does not match stream data {other}")
        return Inspected("raw", self._ends.size, self._ends.size)

    def _finish_declared(self) -> Inspected:
        found = self._found()
        if self._declared == "vhd" and found <= {"gpt"} and formats.is_fixed_vhd(self._ends):
            return Inspected("vhd", self._ends.size, self._ends.size - formats.VHD_FOOTER)
        if self._declared == "iso":
            found -= {"gpt"}  # a bootable ISO has a partition table, too
        if found != {self._declared}:
            what = ", ".join(sorted(found)) or "raw"
            raise UnsafeImage(f"Image disk_format {self._declared} does not match stream data {what}")
        if self._declared == "iso":
            return Inspected("iso", self._ends.size, self._ends.size)
        return self._finish_structured()

    def _finish_structured(self) -> Inspected:
        inspector = self._inspectors[self._declared]
        if self._declared in self._lost:
            raise UnsafeImage(f"{self._declared} image cannot be read: {self._lost[self._declared]}")
        try:
            inspector.safety_check()
            virtual_size = inspector.virtual_size
        except format_inspector.SafetyCheckFailed as error:
            reasons = "; ".join(str(failure) for failure in error.failures.values())
            raise UnsafeImage(f"{self._declared} image is not safe: {reasons}") from error
        except _UNREADABLE as error:
            raise UnsafeImage(f"{self._declared} image cannot be read: {error}") from error
        flaw = _STRICTER[self._declared](inspector, self._ends)
        if flaw:
            raise UnsafeImage(f"{self._declared} image is not safe: {flaw}")
        if not 0 < virtual_size <= LARGEST_VIRTUAL_SIZE:
            raise UnsafeImage(f"{self._declared} image has an impossible size: {virtual_size}")
        return Inspected(self._declared, self._ends.size, virtual_size)

    def _found(self) -> set[str]:
        """The formats whose mark the content carries."""
        found = set()
        for name, inspector in self._inspectors.items():
            try:
                if inspector.format_match:
                    found.add(name)
            except _UNREADABLE:
                continue  # e.g. a text that is almost a VMDK descriptor
        return found


def check(source: Path | BinaryIO, disk_format: str) -> Inspected:
    """Look at a whole file or stream.  UnsafeImage if it is not ``disk_format`` or not safe to open."""
    if isinstance(source, Path):
        with source.open("rb", buffering=0) as file:
            return check(file, disk_format)
    inspection = Inspection(disk_format)
    while piece := source.read(PIECE):
        inspection.feed(piece)
    return inspection.finish()
