"""The host's cache of base images: fetched once, checked twice, shared by all disks that are based on them.

A file's name is its image's id and format.  It appears complete (fetched beside, hashed, looked into, renamed) and
is never written again; its modification time is its last use.  An image goes when nobody has used it for a while,
or for room, oldest first; never one that a disk is based on or that is being used to make one.

An image comes from a user.  glance has looked into it when it was stored; here it is looked into again, because
what QEMU will open is this file: a qcow2 that refers to another file would show the guest a file of the host.
"""

import contextlib
import hashlib
import logging
import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cumulet.core.errors import Retry, Terminal
from cumulet.glance.inspection import Inspection
from cumulet.nova.model import ImageSource

LOG = logging.getLogger(__name__)
FORMATS = ("qcow2", "raw")
_PARTIAL = ".part"
_QCOW2_SIZE_AT = 24

Fetch = Callable[[ImageSource, Callable[[bytes], object]], None]


@dataclass(frozen=True)
class Base:
    path: Path
    format: str
    virtual_size: int  # bytes


@dataclass
class ImageCache:
    """``fetch`` streams an image; ``in_use`` names the files that disks are based on; ``group`` may read them."""

    directory: Path
    limit_bytes: int
    seconds: float
    fetch: Fetch
    in_use: Callable[[], Collection[str]]
    group: Callable[[], int] = os.getegid
    clock: Callable[[], float] = time.time
    owner: int = 0
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _pins: Counter[str] = field(default_factory=Counter)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def use(self, image: ImageSource, fetch: Fetch | None = None) -> Iterator[Base]:
        """The image's file, which stays at least as long as this block.

        Whoever comes second waits for the first one's fetch; other images are fetched meanwhile.  Terminal if the
        image is refused, Retry if it could not be had.  ``fetch``: another way to get it.
        """
        if image.disk_format not in FORMATS:
            raise Terminal(f"Image {image.id} has format {image.disk_format}; bootable here: {', '.join(FORMATS)}")
        name = f"{image.id}.{image.disk_format}"
        path = self.directory / name
        with self._mutex:
            self._pins[name] += 1
            lock = self._locks.setdefault(name, threading.Lock())
        try:
            with lock:
                if not path.exists():
                    self._make(image, path, fetch or self.fetch)
                now = self.clock()
                os.utime(path, (now, now))
            yield Base(path, image.disk_format, _virtual_size(path, image.disk_format))
        finally:
            with self._mutex:
                self._pins[name] -= 1
                if not self._pins[name]:
                    del self._pins[name], self._locks[name]

    def prune(self, room_bytes: int = 0) -> None:
        """Take away what is too old, then what is too much for ``room_bytes`` more; remains of crashes too."""
        if not self.directory.exists():
            return
        with self._mutex:
            kept = set(self._pins) | set(self.in_use())
            entries = []
            for entry in os.scandir(self.directory):
                if entry.name.endswith(_PARTIAL):
                    if entry.name.removesuffix(_PARTIAL) not in self._pins:
                        os.unlink(entry.path)
                    continue
                status = entry.stat(follow_symlinks=False)
                entries.append((status.st_mtime, status.st_blocks * 512, entry.name))
            total = sum(size for _, size, _ in entries)
            for used_at, size, name in sorted(entries):
                old, much = self.clock() - used_at > self.seconds, total + room_bytes > self.limit_bytes
                if name not in kept and (old or much):
                    os.unlink(self.directory / name)
                    total -= size
                    LOG.info("base image %s is gone from the cache: %s", name, "unused" if old else "for room")

    def _make(self, image: ImageSource, path: Path, fetch: Fetch) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        os.chown(self.directory, self.owner, self.group())
        self.directory.chmod(0o710)
        self.prune(image.size)
        space = os.statvfs(self.directory)
        if image.size > space.f_bavail * space.f_frsize:
            raise Retry(f"no room for image {image.id} ({image.size} bytes) in {self.directory}")
        partial = path.with_name(path.name + _PARTIAL)
        try:
            with partial.open("wb") as file:
                _receive(image, fetch, file)
                os.fchmod(file.fileno(), 0o640)
                os.fchown(file.fileno(), self.owner, self.group())
                os.fsync(file.fileno())
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)


def _receive(image: ImageSource, fetch: Fetch, file: BinaryIO) -> None:
    """Stream the image into ``file``: Retry unless it is what the database says, Terminal if it is unsafe."""
    digest, inspection = hashlib.sha512(), Inspection(image.disk_format)
    left = image.size

    def write(chunk: bytes) -> None:
        nonlocal left
        left -= len(chunk)
        if left < 0:
            raise Retry(f"image {image.id} is longer than its {image.size} bytes")
        digest.update(chunk)
        inspection.feed(chunk)
        try:
            file.write(chunk)
        except OSError as error:
            raise Retry(f"image {image.id} cannot be written: {error.strerror}") from error

    fetch(image, write)
    file.flush()
    if left or digest.hexdigest() != image.sha512.lower():
        raise Retry(f"image {image.id} came damaged: {image.size - left} bytes, sha512 {digest.hexdigest()[:16]}…")
    inspection.finish()


def _virtual_size(path: Path, disk_format: str) -> int:
    if disk_format == "raw":
        return path.stat().st_size
    with path.open("rb") as file:
        file.seek(_QCOW2_SIZE_AT)
        return int(struct.unpack(">Q", file.read(8))[0])
