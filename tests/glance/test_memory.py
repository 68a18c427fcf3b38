"""Image data passes in constant memory, both ways, and each piece takes its turn with everybody else's."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from tests.glance.rig import Glance

MIB = 1 << 20
BIG, SMALL = 256, 64
BOUND = 24 * MIB
"""Some pieces of 1 MiB in flight, and what the allocator keeps; a tenth of the image."""


def generated(mebibytes: int) -> Iterator[bytes]:
    """As uvicorn gives it: pieces of 64 KiB, each one new."""
    for number in range(mebibytes * 16):
        yield number.to_bytes(4, "big") * 16384


def memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


class Watched:
    """The highest resident memory within the block, above what there was."""

    def __enter__(self) -> "Watched":
        Path("/proc/self/clear_refs").write_text("5")
        self.before = memory("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.grown = memory("VmHWM") - self.before


def test_resident_memory_does_not_grow_with_the_image(glance: Glance) -> None:
    image = glance.create()
    with Watched() as upload:
        assert glance.upload("alice", image["id"], generated(BIG)).status == 204
    assert glance.show(image["id"])["size"] == BIG * MIB
    assert upload.grown < BOUND
    got = 0

    def sink(piece: bytes) -> None:
        nonlocal got
        got += len(piece)

    with Watched() as download:
        assert glance.download("alice", image["id"], sink=sink).status == 200
    assert got == BIG * MIB
    assert download.grown < BOUND


def test_no_object_of_an_image_s_size_is_made(glance: Glance) -> None:
    image = glance.create(disk_format="iso")
    tracemalloc.start()
    try:
        assert glance.upload("alice", image["id"], generated(SMALL)).status == 415
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
