"""Servers' files on a file system that several hosts have in common (``compute.shared_disks``).

Each host keeps the files of its servers in a directory of its own there, ``<host>/<server>/``, and removes names
from that alone.  So what goes to another host without being copied is a second name for the same file (a hard
link): it lives as long as one of the two has it, and no host can take away what is another's
(``docs/decisions/0018-a-disk-has-two-names.md``).

A file beside those directories, which whoever comes first has made, says which file system this is.
"""

import os
import re
import secrets
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cumulet.core.config import Config
from cumulet.core.errors import Retry, Terminal
from cumulet.nova.compute import spare_disks
from cumulet.nova.compute.file_gifts import DISK

FILE = ".cumulet-store"
PROOF = "proof"
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


class DisksElsewhere(Exception):
    """Servers have files where they would not be looked for any more."""


def directory(config: Config) -> Path:
    """Where this host's servers have their files.  DisksElsewhere if some have them where they were before."""
    own = config.state / "servers"
    if not config.compute.shared_disks:
        return own
    if own.is_dir() and any(own.iterdir()):
        raise DisksElsewhere(
            f"compute.shared_disks is set, and {own} is not empty: bring what is in it to "
            f"{config.compute.shared_disks}/{config.node.name}, or delete these servers first"
        )
    return _host_directory(Path(config.compute.shared_disks), config.node.name)


@dataclass(frozen=True)
class SharedDisks:
    """``root``: the file system that is shared; null: none is.  ``host``: this one, ``state``: what is its own."""

    root: Path | None
    host: str
    state: Path

    def store(self) -> str:
        """Which file system it is, the same to all hosts that have it; empty if none is shared.

        Retry if it is not the one that it was: nothing may be concluded from what is not there.
        """
        if self.root is None:
            return ""
        known = self.state / "shared-disks"
        before, found = _read(known), _read(self.root / FILE)
        if before and found != before:
            raise Retry(f"{self.root} is not the file system that it was; is it mounted?")
        if not found:
            found = self._begin(self.root)
        if not before:
            _write(known, found)
        return found

    def _begin(self, root: Path) -> str:
        """Write down which one it is, or read what another host has written at the same moment."""
        mine = root / f"{FILE}.{self.host}"
        _write(mine, str(uuid.uuid4()))
        with suppress(FileExistsError):
            os.link(mine, root / FILE)
        mine.unlink()
        return _read(root / FILE)

    def prove(self, server_id: str) -> str:
        """What only who sees this host's files can read; for the host that has the server's guest."""
        if self.root is None:
            return ""
        proof = secrets.token_hex(16)
        (self._place(self.root, self.host, server_id) / PROOF).write_text(proof)
        return proof

    def hand_over(self, server_id: str, host: str, proof: str) -> bool:
        """The disks are ``host``'s, too, in place of its empty ones; False if it has no proof that they can be."""
        if self.root is None or not proof:
            return False
        there = self._place(self.root, host, server_id)
        try:
            if (there / PROOF).read_text() != proof:
                return False
        except OSError:
            return False
        _name_too(self._place(self.root, self.host, server_id), there)
        return True

    def inherit(self, server_id: str, host: str) -> None:
        """The disks that the server has on ``host``, which is dead, are this one's, too."""
        if self.root is None:
            raise Terminal(f"There is no file system here that {host} has, too.")
        before = self._place(self.root, host, server_id)
        if not (before / DISK).exists():
            raise Terminal(f"The server's disk is not in the files of {host}.")
        _name_too(before, self._place(self.root, self.host, server_id))

    @staticmethod
    def _place(root: Path, host: str, server_id: str) -> Path:
        return _host_directory(root, host) / str(uuid.UUID(server_id))


def _host_directory(root: Path, host: str) -> Path:
    if not _HOST.fullmatch(host):
        raise Terminal(f"{host!r} is not a host's name")
    return root / host


def _read(path: Path) -> str:
    """Empty if there is no such file."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _write(path: Path, text: str) -> None:
    """At once, and so that it is there after a power cut."""
    partial = path.with_name(f"{path.name}.new")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def _name_too(here: Path, there: Path) -> None:
    """Those disks that are ``here`` have a name ``there``, the root disk last: what has that is whole."""
    for name in (*spare_disks.NAMES, DISK):
        source, target, partial = here / name, there / name, there / f"{name}.new"
        if not source.exists() or (target.exists() and target.samefile(source)):
            continue
        partial.unlink(missing_ok=True)
        os.link(source, partial)
        partial.rename(target)
    descriptor = os.open(there, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
