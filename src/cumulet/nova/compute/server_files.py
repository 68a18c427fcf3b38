"""A server's files on its host: ``servers/<id>/`` with disk, config drive and console log.

``disk`` appears complete, by rename; so if it is there, it is whole.  ``base`` is a link to the image that the
disk is based on, made before the disk, and is what keeps that image in the cache.  ``copy-<verb>.qcow2`` is a copy
of the disk on its way to glance; while it is made it ends in ``.part``.  QEMU's user may open the files and pass
through the directory, not write into it; nobody else may either.
"""

import contextlib
import os
import pwd
import re
import shutil
import stat
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cumulet.core.errors import Retry, Terminal
from cumulet.nova.compute import disk_sizes, spare_disks
from cumulet.nova.compute.config_drive import build
from cumulet.nova.compute.disk_sizes import Pull
from cumulet.nova.compute.domain_xml import Files
from cumulet.nova.compute.image_cache import Base
from cumulet.nova.compute.tools import qemu_img
from cumulet.nova.model import ServerIntent

GIB = 1 << 30
_COPY_SECONDS = 3600  # for a whole disk
_DISK_OPTIONS = "extended_l2=on,cluster_size=128k"  # the quickest copy on write
_SECTOR = 512
_COPY = re.compile(r"copy-([0-9]+)\.qcow2(\.part)?")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Found:
    """What a scan sees of one server."""

    disk: bool
    base: str  # the name of a file in the cache of images
    copies: frozenset[int] = frozenset()  # verbs

    @property
    def image(self) -> str:
        """The id of the image that the disk was made from."""
        return self.base.rpartition(".")[0] if self.disk else ""


class ServerFiles:
    def __init__(self, directory: Path, qemu_user: str) -> None:
        self.directory, self._user = directory, qemu_user

    def scan(self) -> dict[str, Found]:
        """Every server that has files, by id."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return {}
        return {name: found for name in names if _ID.fullmatch(name) and (found := self.find(name))}

    def find(self, server_id: str) -> Found | None:
        place = self.directory / server_id
        try:
            base = os.path.basename(os.readlink(place / "base"))
        except FileNotFoundError:
            base = ""
        except OSError:
            return None  # not a directory: not ours
        if not place.is_dir():
            return None
        copies = (_COPY.fullmatch(name) for name in os.listdir(place))
        return Found((place / "disk").exists(), base, frozenset(int(copy[1]) for copy in copies if copy))

    def bases(self) -> set[str]:
        """The cached images that disks are based on."""
        return {found.base for found in self.scan().values()}

    def ensure_directory(self, server_id: str, config_drive: Mapping[str, bytes]) -> None:
        """The directory with what is there before the disk; what is there already stays as it is."""
        place = self.place(server_id)
        owner, group = self.ids()
        place.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)
        os.chown(place, 0, group)
        place.chmod(0o710)
        self._write(place / "console.log", b"", owner, group)
        if config_drive:
            self._write(place / "config.iso", build(config_drive), owner, group)

    def make_disk(self, server: ServerIntent, base: Base) -> None:
        """The disk: an overlay on ``base``, as large as the flavor says; and those beside it."""
        place, size = self.place(server.id), server.root_gb * GIB or base.virtual_size
        self.link_base(server.id, base)
        partial = self._make_overlay(place, str(base.path), base.format, size)
        spare_disks.make(place, server, self._give)
        partial.rename(place / "disk")

    def link_base(self, server_id: str, base: Base) -> None:
        """The disk to come is based on this."""
        link = self.place(server_id) / "base"
        link.unlink(missing_ok=True)
        link.symlink_to(base.path)

    def empty_disks(self, server_id: str, sizes: Mapping[str, int]) -> None:
        """Disks of these sizes with nothing in them, in place of those that are there: a guest brings its own."""
        place = self.place(server_id)
        base = os.readlink(place / "base")
        overlay = self._make_overlay(place, base, base.rpartition(".")[2], sizes["disk"])
        for name in spare_disks.NAMES:
            (place / name).unlink(missing_ok=True)
            if name in sizes:
                with (place / name).open("xb") as file:
                    file.truncate(sizes[name])
                self._give(place / name)
        overlay.rename(place / "disk")

    def measure(self, server_id: str) -> dict[str, int]:
        """How large its disks are, by name."""
        return disk_sizes.measure(self.place(server_id))

    def _make_overlay(self, place: Path, base: str, base_format: str, size: int) -> Path:
        """A disk that is not in its place yet."""
        partial = place / "disk.new"
        partial.unlink(missing_ok=True)
        size += -size % _SECTOR
        options = ("-f", "qcow2", "-o", _DISK_OPTIONS, "-F", base_format, "-b", base)
        qemu_img("create", "-q", *options, partial, str(size))
        self._give(partial)
        _sync(partial)
        return partial

    def adopt_disk(self, server: ServerIntent, base: Base, pull: Pull) -> None:
        """The disks of a server that comes from another host."""
        self.link_base(server.id, base)
        disk_sizes.adopt(self.place(server.id), server, base, pull, self._give)

    def resize_disk(self, server: ServerIntent) -> None:
        """As large as the flavor says; what was there before is kept.  If that cannot be, all is as it was."""
        place = self.place(server.id)
        disk_sizes.keep(place, self._give)
        try:
            disk_sizes.fit(place, server, self._give)
        except Terminal:
            disk_sizes.restore(place, server, self._give)
            raise

    def restore_disk(self, server: ServerIntent) -> None:
        disk_sizes.restore(self.place(server.id), server, self._give)

    def forget_kept(self, server_id: str) -> None:
        disk_sizes.forget(self.place(server_id))

    def find_gift(self, server_id: str, name: str) -> Path | None:
        """A file for the host that the server moves to."""
        path = self.place(server_id) / name
        return path if path.is_file() else None

    def remove_disk(self, server_id: str) -> None:
        """The disk goes, and with it what else is made anew together with it."""
        for name in ("disk", "config.iso", *spare_disks.NAMES):
            (self.place(server_id) / name).unlink(missing_ok=True)

    def copy_path(self, server_id: str, verb: int) -> Path:
        """Where the complete copy of the disk for ``verb`` is."""
        return self.place(server_id) / f"copy-{verb}.qcow2"

    def begin_copy(self, server_id: str, verb: int, size: int) -> Path:
        """An empty disk of ``size`` bytes that QEMU may fill; ``finish_copy`` says that it has."""
        partial = self._partial_copy(server_id, verb)
        partial.unlink(missing_ok=True)
        qemu_img("create", "-q", "-f", "qcow2", partial, str(size))
        self._give(partial)
        return partial

    def finish_copy(self, server_id: str, verb: int) -> None:
        partial = self._partial_copy(server_id, verb)
        _sync(partial)
        partial.rename(self.copy_path(server_id, verb))

    def copy_disk(self, server_id: str, verb: int) -> None:
        """A complete copy of a disk that no guest uses, without anything beneath it."""
        partial = self._partial_copy(server_id, verb)
        partial.unlink(missing_ok=True)
        disk = self.place(server_id) / "disk"
        qemu_img("convert", "-q", "-f", "qcow2", "-O", "qcow2", disk, partial, seconds=_COPY_SECONDS)
        self.finish_copy(server_id, verb)

    def remove_copies(self, server_id: str, verbs: Collection[int]) -> None:
        for verb in verbs:
            self._partial_copy(server_id, verb).unlink(missing_ok=True)
            self.copy_path(server_id, verb).unlink(missing_ok=True)

    def _partial_copy(self, server_id: str, verb: int) -> Path:
        return self.place(server_id) / f"copy-{verb}.qcow2.part"

    def paths(self, server_id: str) -> Files:
        """Where the domain finds its files; Retry if there is no disk."""
        place = self.place(server_id)
        found = self.find(server_id)
        if not found or not found.disk:
            raise Retry(f"server {server_id} has no disk yet")
        base = os.readlink(place / "base")
        drive = place / "config.iso"
        return Files(
            disk=str(place / "disk"),
            bases=[(base, base.rpartition(".")[2])],
            console_log=str(place / "console.log"),
            config_drive=str(drive) if drive.exists() else "",
            spares=spare_disks.find(place),
        )

    def remove(self, server_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.place(server_id))

    def console_tail(self, server_id: str, limit: int) -> bytes:
        """The last bytes of the console's log; empty if there is none."""
        try:
            with _open_plain(self.place(server_id) / "console.log", os.O_RDONLY) as descriptor:
                size = os.fstat(descriptor).st_size
                return os.pread(descriptor, limit, max(0, size - limit))
        except FileNotFoundError:
            return b""

    def bound_console_log(self, server_id: str, limit: int) -> None:
        """Cut a log of more than twice ``limit`` to its tail, in place: QEMU holds it open and appends.

        What QEMU writes between reading the tail and cutting is lost; that is microseconds of a flood.
        """
        path = self.place(server_id) / "console.log"
        try:
            if os.lstat(path).st_size <= 2 * limit:
                return
            with _open_plain(path, os.O_RDWR | os.O_APPEND) as descriptor:
                tail = os.pread(descriptor, limit, os.fstat(descriptor).st_size - limit)
                os.ftruncate(descriptor, 0)
                os.write(descriptor, tail)
        except FileNotFoundError:
            return

    def place(self, server_id: str) -> Path:
        """A server's directory; ids that are not ids name none."""
        if not _ID.fullmatch(server_id):
            raise Terminal(f"{server_id!r} is not a server's id")
        return self.directory / server_id

    def ids(self) -> tuple[int, int]:
        entry = pwd.getpwnam(self._user)
        return entry.pw_uid, entry.pw_gid

    def _give(self, path: Path) -> None:
        """QEMU may use the file, and nobody else."""
        path.chmod(0o600)
        os.chown(path, *self.ids())

    def _write(self, path: Path, content: bytes, owner: int, group: int) -> None:
        """Make the file, at once and complete, if there is none."""
        if path.exists():
            return
        partial = path.with_name(f"{path.name}.new")
        partial.write_bytes(content)
        partial.chmod(0o600)
        os.chown(partial, owner, group)
        partial.rename(path)


def direct_io(directory: Path) -> bool:
    """Whether files here can be opened past the page cache, which QEMU's cache mode "none" needs."""
    probe = directory / f".direct-{uuid.uuid4().hex}"
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_DIRECT, 0o600))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _open_plain(path: Path, flags: int) -> Iterator[int]:
    """A regular file and no link: QEMU's user could be a guest's by now."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(path)
        yield descriptor
    finally:
        os.close(descriptor)
