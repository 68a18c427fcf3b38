"""The cache of base images: once each, checked, bounded, and never from beneath a disk."""

import hashlib
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cumulet.core.errors import Retry, Terminal
from cumulet.nova.compute.image_cache import ImageCache
from cumulet.nova.model import ImageSource

SIZE = 64 * 1024
QCOW2_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")


def qcow2(virtual_size: int = 1 << 30, backing: bytes = b"") -> bytes:
    """A version 3 header and an L1 table, enough to be looked at."""
    cluster = 1 << 16
    header = QCOW2_HEADER.pack(
        b"QFI\xfb", 3, 512 if backing else 0, len(backing), 16, virtual_size, 0,
        2, 3 * cluster, cluster, 1, 0, 0, 0, 0, 0, 4, 104,
    )  # fmt: skip
    return (header.ljust(512, b"\0") + backing).ljust(4 * cluster, b"\0")


class Rig:
    def __init__(self, directory: Path, limit: int = 10 * SIZE, seconds: float = 100) -> None:
        self.contents: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.in_use: set[str] = set()
        self.now = 1_000_000.0
        self.before_last_byte: Callable[[], None] = lambda: None
        self.cache = ImageCache(
            directory, limit, seconds, self.fetch, lambda: self.in_use, clock=lambda: self.now, owner=os.getuid()
        )

    def image(self, name: str, content: bytes = os.urandom(SIZE), disk_format: str = "raw") -> ImageSource:
        self.contents[name] = content
        digest = hashlib.sha512(content).hexdigest()
        return ImageSource(name, disk_format, len(content), len(content), digest, "")

    def fetch(self, image: ImageSource, write: Callable[[bytes], object]) -> None:
        self.fetched.append(image.id)
        content = self.contents[image.id]
        write(content[:-1])
        self.before_last_byte()
        write(content[-1:])

    def use(self, image: ImageSource) -> Path:
        with self.cache.use(image) as base:
            assert base.path.exists()
            return base.path

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.cache.directory))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "cache")


def test_fetched_once(rig: Rig) -> None:
    image = rig.image("a")
    for _ in range(3):
        assert rig.use(image).read_bytes() == rig.contents["a"]
    assert rig.fetched == ["a"]
    assert rig.names == ["a.raw"]


def test_those_who_come_meanwhile_wait_and_others_do_not(rig: Rig) -> None:
    image, other = rig.image("a"), rig.image("b")
    reached, go_on = threading.Event(), threading.Event()

    def before_last_byte() -> None:
        if not reached.is_set():
            reached.set()
            assert go_on.wait(10)

    rig.before_last_byte = before_last_byte
    threads = [threading.Thread(target=rig.use, args=(image,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert reached.wait(10)
    rig.use(other)
    assert rig.names == ["a.raw.part", "b.raw"]
    rig.cache.prune()  # what is being fetched is no leftover
    assert rig.names == ["a.raw.part", "b.raw"]
    go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(rig.fetched) == ["a", "b"]


@pytest.mark.parametrize("change", ["shorter", "longer", "other"])
def test_a_damaged_image_is_fetched_again(rig: Rig, change: str) -> None:
    image = rig.image("a")
    good = rig.contents["a"]
    rig.contents["a"] = {"shorter": good[:-1], "longer": good + b"x", "other": b"x" + good[1:]}[change]
    with pytest.raises(Retry):
        rig.use(image)
    assert rig.names == []
    rig.contents["a"] = good
    rig.use(image)
    assert rig.names == ["a.raw"]


def test_a_fetch_that_breaks_off_leaves_nothing(rig: Rig) -> None:
    def break_off() -> None:
        raise Retry("glance-api broke off")

    rig.before_last_byte = break_off
    with pytest.raises(Retry):
        rig.use(rig.image("a"))
    assert rig.names == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (qcow2(backing=b"/etc/shadow"), "qcow2"),
        (qcow2(), "raw"),
        (bytes(SIZE), "qcow2"),
        (bytes(SIZE), "vmdk"),
        (bytes(SIZE), "nonsense"),
    ],
)
def test_an_unsafe_image_is_refused(rig: Rig, content: bytes, said: str) -> None:
    with pytest.raises(Terminal):
        rig.use(rig.image("a", content, said))
    assert not rig.cache.directory.exists() or rig.names == []


def test_size_is_the_contents_own(rig: Rig) -> None:
    with rig.cache.use(rig.image("a", qcow2(5 << 30), "qcow2")) as base:
        assert (base.format, base.virtual_size) == ("qcow2", 5 << 30)
    with rig.cache.use(rig.image("b")) as base:
        assert (base.format, base.virtual_size) == ("raw", SIZE)


def test_unused_images_grow_old(rig: Rig) -> None:
    rig.use(rig.image("a"))
    rig.use(rig.image("based"))
    rig.in_use = {"based.raw"}
    rig.now += 90
    rig.use(rig.image("b"))
    rig.cache.prune()
    assert rig.names == ["a.raw", "b.raw", "based.raw"]
    rig.now += 20
    with rig.cache.use(rig.image("a")):  # used again
        rig.cache.prune()
    assert rig.names == ["a.raw", "b.raw", "based.raw"]
    rig.now += 101
    with rig.cache.use(rig.image("b")):
        rig.now += 101
        rig.cache.prune()  # in use at this moment, however old
        assert rig.names == ["b.raw", "based.raw"]
    rig.now += 101
    rig.cache.prune()
    assert rig.names == ["based.raw"]


def test_room_is_made_from_the_oldest(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "cache", limit=3 * SIZE)
    for name in ("based", "a", "b"):
        rig.use(rig.image(name))
        rig.now += 1
    rig.in_use = {"based.raw"}
    rig.use(rig.image("c"))
    assert rig.names == ["b.raw", "based.raw", "c.raw"]
    rig.in_use = {"based.raw", "b.raw", "c.raw"}
    rig.use(rig.image("d"))  # more than the bound, rather than from beneath a disk
    assert rig.names == ["b.raw", "based.raw", "c.raw", "d.raw"]


def test_what_a_crash_left_is_taken_away(rig: Rig) -> None:
    rig.use(rig.image("a"))
    (rig.cache.directory / "b.raw.part").write_bytes(b"x")
    rig.cache.prune()
    assert rig.names == ["a.raw"]
