"""The memory of the node's parent, made fit to be shared before it forks.

A child has what its parent has until it writes to it: then it gets a copy of the page.  Two things make it write
without need, and are done away with here: the garbage collector looks at everything (it shall not look at what is
there already), and a new object takes the next free place, which may be a small hole among a hundred objects that
never change.  So the holes are filled, and what a child makes lies together on pages of its own.  And the collector
looks less often: little of what a request makes has to wait for it.
"""

import ctypes
import gc
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SMALLEST, SMALL, STEP = 48, 512, 16
"""Sizes of objects that Python's own allocator serves, in classes of 16 bytes, from pools of 16 KiB whose first
object lies behind a header.  A ``bytes`` of no length has 33 bytes."""
EMPTY_BYTES, POOL, HEADER, IN_A_ROW = 33, 16384, 48, 4
LARGE = 1 << 16
"""Up to here: larger pieces of memory are rare."""

GARBAGE = 10_000
"""How many new objects make the collector look."""

_filling: list[Any] = []
_COUNTED = [
    "arena",
    "ordblks",
    "smblks",
    "hblks",
    "hblkhd",
    "usmblks",
    "fsmblks",
    "uordblks",
    "fordblks",
    "keepcost",
]


class _Counts(ctypes.Structure):
    """glibc's ``struct mallinfo2``: in bytes, how much of the heap is there and how much is left at its end."""

    _fields_ = [(name, ctypes.c_size_t) for name in _COUNTED]


def settle() -> None:
    """Call it once, when everything is loaded, just before the first fork."""
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    _fill_pools()
    _fill_heap(libc)
    gc.freeze()
    gc.set_threshold(GARBAGE, 10, 10)
    _forget_code(libc)


def _fill_pools() -> None:
    """Take objects of each class until they come one behind the other from the start of a pool that was empty."""
    for size in range(SMALLEST, SMALL + 1, STEP):
        places = [0] * IN_A_ROW
        while any(place % POOL != HEADER + size * index for index, place in enumerate(places)):
            _filling.append(bytes(size - EMPTY_BYTES))
            places = [*places[1:], id(_filling[-1])]


def _fill_heap(libc: ctypes.CDLL) -> None:
    """Take pieces of each size, the largest first, until the next one would be cut from the end of the heap."""
    libc.mallinfo2.restype = _Counts
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]

    def end() -> tuple[int, int]:
        counts = libc.mallinfo2()
        return counts.arena, counts.keepcost

    size = LARGE
    while size > STEP:
        before = end()
        piece = libc.malloc(size)
        if end() != before:
            libc.free(piece)
            size -= max(STEP, size // 16 // STEP * STEP)


def _forget_code(libc: ctypes.CDLL) -> None:
    """Unmap what was only needed to load: the pages of programs and libraries come back from their files."""
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for start, end in _unchanged_mappings():
        libc.madvise(start, end - start, mmap.MADV_DONTNEED)


def _unchanged_mappings() -> Iterator[tuple[int, int]]:
    """Those of files that cannot be written to and of which no page was ever changed."""
    place = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if head := re.match(r"([0-9a-f]+)-([0-9a-f]+) r-.p \S+ \S+ [1-9]\d* +/", line):
            place = int(head[1], 16), int(head[2], 16)
        elif re.match(r"[0-9a-f]+-", line):
            place = None
        elif place and line.split() == ["Anonymous:", "0", "kB"]:
            yield place
