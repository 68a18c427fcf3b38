"""Where image data lies: files in one directory, ``<image>.<attempt>``, and with ``.part`` while they are made.

Every upload attempt has a file of its own and no name is ever used twice, so whoever removes a file cannot hit
another's.  An uploader holds a lock on its file from before anybody can see it until the registry knows the
outcome; the kernel drops the lock when the process dies.  So a file without a lock, that the registry does not
call an image's data, is litter, and that is all the loop needs to know (``glance.leftovers``).

The database decides what counts: a complete file is an image's data only once the registry says so.
"""

import errno
import fcntl
import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cumulet.core.errors import ApiError, TooLarge, Unavailable
from cumulet.glance.inspection import Inspection
from cumulet.glance.model import Stored

NAME = "file"
"""The store's id in the API; there is one store."""
_FILE = re.compile(r"(?P<image>[0-9a-f-]{36})\.(?P<attempt>[0-9a-f]{32})(?P<part>\.part)?")


class StoredFile(msgspec.Struct, frozen=True):
    image_id: str
    attempt: str
    partial: bool

    @property
    def name(self) -> str:
        return f"{self.image_id}.{self.attempt}" + (".part" if self.partial else "")


class Store:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)

    def begin(self, image_id: str, attempt: str, disk_format: str, largest: int) -> "Upload":
        """A new, empty, locked file.  Without ``disk_format`` nobody looks at what comes, as it is only staged."""
        file = StoredFile(image_id, attempt, True)
        self.before_effect("create")
        descriptor = self._create(file)
        self.after_effect("create")
        return Upload(self, file, descriptor, Measure(disk_format) if disk_format else None, largest)

    def open(self, image_id: str, attempt: str) -> io.FileIO:
        """The data of an image; FileNotFoundError if it is not here."""
        return io.FileIO(self._path(StoredFile(image_id, attempt, False)), "rb")

    def list_files(self) -> list[StoredFile]:
        """Every file that an upload made.  What has another name is not ours and is left alone."""
        found = (_FILE.fullmatch(name) for name in os.listdir(self._directory))
        return [StoredFile(m["image"], m["attempt"], m["part"] is not None) for m in found if m]

    @contextmanager
    def idle(self, file: StoredFile) -> Iterator[bool]:
        """Whether nobody uploads into this file (or it is not there); while the block runs nobody begins to."""
        try:
            descriptor = os.open(self._path(file), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield True
            return
        try:
            yield _locked(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, file: StoredFile) -> None:
        """Remove a file; may be repeated."""
        self.before_effect("remove")
        self._path(file).unlink(missing_ok=True)
        self.after_effect("remove")

    def complete(self, file: StoredFile, descriptor: int) -> StoredFile:
        """Make a partial file a whole one that survives a power cut."""
        whole = StoredFile(file.image_id, file.attempt, False)
        try:
            os.fsync(descriptor)
            self.before_effect("rename")
            os.rename(self._path(file), self._path(whole))
            self._sync_directory()
        except OSError as error:
            raise _failure(error) from error
        self.after_effect("rename")
        return whole

    def before_effect(self, what: str) -> None:
        """A seam for tests that die just before a change lasts."""

    def after_effect(self, what: str) -> None:
        """A seam for tests that die just after a change lasts."""

    def _create(self, file: StoredFile) -> int:
        """A new file, locked.  The loop may take an unlocked one for litter: then another is made."""
        while True:
            try:
                descriptor = os.open(self._path(file), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            except OSError as error:
                raise _failure(error) from error
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)

    def _path(self, file: StoredFile) -> Path:
        return self._directory / file.name

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Measure:
    """What there is to know of an image's data, from its pieces in order; UnsafeImage as ``Inspection`` has it."""

    def __init__(self, disk_format: str) -> None:
        self._inspection = Inspection(disk_format)
        self._md5, self._sha512 = hashlib.md5(usedforsecurity=False), hashlib.sha512()
        self._size = 0

    def feed(self, piece: bytes) -> None:
        self._inspection.feed(piece)
        self._md5.update(piece)
        self._sha512.update(piece)
        self._size += len(piece)

    def finish(self) -> Stored:
        return Stored(
            size=self._size,
            virtual_size=self._inspection.finish().virtual_size,
            checksum=self._md5.hexdigest(),
            sha512=self._sha512.hexdigest(),
        )


class Upload:
    """One image's data on its way in: written, hashed and looked at piece by piece.  Each call may block."""

    def __init__(
        self, store: Store, file: StoredFile, descriptor: int, measure: "Measure | None", largest: int
    ) -> None:
        self._store, self._file, self._descriptor = store, file, descriptor
        self._measure, self._largest = measure, largest
        self.size = 0

    def write(self, piece: bytes) -> None:
        """The next bytes.  TooLarge beyond the largest image or a full disk, UnsafeImage for bad content."""
        self.size += len(piece)
        if self.size > self._largest:
            raise TooLarge(f"The incoming image is too large: more than {self._largest} bytes")
        if self._measure:
            self._measure.feed(piece)
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise _failure(error) from error

    def finish(self, sha512: str = "") -> Stored:
        """The verdict, then the file under its final name.  The lock is still held: ``close`` ends it.

        Unavailable, and no file, if there ought to be a certain SHA-512 and there is not.
        """
        assert self._measure is not None
        stored = self._measure.finish()
        if sha512 not in ("", stored.sha512):
            raise Unavailable(f"what came of image {self._file.image_id} is not its data")
        self.keep()
        return stored

    def keep(self) -> None:
        """The file under its final name, whatever is in it."""
        self._file = self._store.complete(self._file, self._descriptor)

    def discard(self) -> None:
        """Remove the file, whatever its name is by now."""
        self._store.remove(self._file)

    def close(self) -> None:
        """Let go of the file: from now on the registry's word alone says whether it is data or litter."""
        os.close(self._descriptor)


def _locked(descriptor: int) -> bool:
    """Take the lock of an open file, if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _failure(error: OSError) -> ApiError:
    """For the client: without the path."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return TooLarge(f"Image storage media is full: {os.strerror(error.errno)}")
    return Unavailable(f"Image storage media cannot be written: {os.strerror(error.errno or errno.EIO)}")
