"""A parcel (``core.parcels``) put in place on its node, and the version of the package that is there.

``deploy`` carries it over ssh, ``node join`` fetches it.  What is in place already is not touched; of files only
the names are told.
"""

import hashlib
import os
import pwd
from pathlib import Path

import msgspec

from cumulet.core import config as configuration
from cumulet.core import secrets
from cumulet.core.config import Config
from cumulet.core.errors import BadRequest
from cumulet.core.parcels import CONFIG, KEYS, SECRETS, TOPOLOGY, Parcel

HOME = Path(__file__).parents[3]
SOURCES = ("cumulet", "pyproject.toml", "src", "tools", "images")
"""What of a checkout a node runs; the rest is for who works on it."""
PRIVATE, GUARDED, OPEN = 0o600, 0o640, 0o644
"""For its owner; for the cloud's user, too; for everybody."""


class Found(msgspec.Struct, frozen=True):
    """A node as it is: its package's version, the files of its parcel that differ, whether it runs."""

    version: str
    changes: list[str]
    running: bool


def look(parcel: Parcel, etc: Path) -> list[str]:
    """The files of the parcel that are not in place, by name."""
    _check(parcel)
    return [name for name, text in parcel.files.items() if _read(etc / name) != text]


def settle(parcel: Parcel, file: Path) -> list[str]:
    """Put in place what is not; each file whole or not at all.  Returns the names of what was written."""
    etc = file.parent
    changes = look(parcel, etc)
    etc.mkdir(parents=True, exist_ok=True)
    for name in changes:
        _write(etc / name, parcel.files[name], _mode(name, parcel.files[name]))
    config = configuration.load(file)
    if config.controls and SECRETS not in parcel.files and not secrets.path(etc).exists():
        secrets.ensure(etc)
        changes.append(SECRETS)
    return changes


def version() -> str:
    """Of the package that this program belongs to: of every file that makes a difference."""
    digest = hashlib.sha256()
    for file in package_files():
        digest.update(f"{file.relative_to(HOME)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def package_files() -> list[Path]:
    """What ``SOURCES`` hold, but for what Python and its installer leave there."""
    found = []
    for name in SOURCES:
        top = HOME / name
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            words = file.relative_to(HOME).parts
            if file.is_file() and not any(word == "__pycache__" or word.endswith(".egg-info") for word in words):
                found.append(file)
    return found


def _check(parcel: Parcel) -> None:
    """A parcel comes from elsewhere: it writes nothing but what parcels have."""
    for name in parcel.files:
        top, _, rest = name.partition("/")
        if name not in (CONFIG, SECRETS, TOPOLOGY) and not (top == KEYS and rest.isascii() and rest.isdigit()):
            raise BadRequest(f"a parcel does not have {name!r}")


def _mode(name: str, text: str) -> int:
    if name == SECRETS or name.startswith(KEYS):
        return PRIVATE
    return GUARDED if _has_password(text) else OPEN


def _has_password(text: str) -> bool:
    """Whether a URL in it may have one."""
    return any("://" in line and "@" in line for line in text.splitlines())


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    temporary.rename(path)


def give(config: Config) -> None:
    """To the cloud's user what that may read; ``up`` sees to the rest."""
    from cumulet.cli import prepare

    prepare.user(config)
    own = pwd.getpwnam(config.node.user)
    for path in (config.etc / CONFIG, config.etc / TOPOLOGY):
        if path.exists() and path.stat().st_mode & 0o777 == GUARDED:
            os.chown(path, 0, own.pw_gid)
    for path in (config.etc / KEYS).glob("*"):
        os.chown(path, own.pw_uid, own.pw_gid)
