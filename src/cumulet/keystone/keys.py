"""The keys that seal tokens: files in ``etc/fernet-keys``, rotated as keystone does it; and, in
``etc/credential-keys``, those that seal the users' stored credentials, which no clock rotates.

The file with the highest number is the primary key and seals; ``0`` is the staged key, the next primary, known
everywhere before it is used; those between are secondary and only open.  A rotation makes the staged key
primary, writes a new staged one and forgets the oldest.  Enough secondaries are kept that no living token loses
its key.  Every process reads the directory again when it changes, so a rotation needs no message.

Several controllers have the same keys without telling each other: each works them out of the cloud's secret and the
number of the period of ``key_rotation_seconds`` that it is.  Their clocks may differ by a period, for the next key
is staged everywhere and the last one is kept.  What seals credentials is worked out likewise, for no period, unless
it is there already: a second controller is given the first one's.

What may fail here: a crash in a rotation leaves no staged key; the next rotation makes one.
"""

import base64
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from cumulet.core import secrets
from cumulet.core.config import Config
from cumulet.core.errors import Unavailable
from cumulet.core.reconcile import Later, Reconciler

STAGED = "0"
TOKENS = "fernet-keys"
RACY_NANOSECONDS = 100_000_000
"""A directory read sooner than this after its last change may change again within the clock's tick."""


def directory(config: Config) -> Path:
    return config.etc / TOKENS


def credential_directory(config: Config) -> Path:
    return config.etc / "credential-keys"


def directories(config: Config) -> tuple[Path, Path]:
    return directory(config), credential_directory(config)


def keys_kept(config: Config) -> int:
    """Staged, primary, and the secondaries under which tokens may still be alive."""
    identity = config.identity
    return 2 + -(-identity.token_seconds // max(identity.key_rotation_seconds, 1))


def ensure(config: Config) -> None:
    """Make each directory (0700) and its first two keys (0600), owned as their directory is, if there are none."""
    for place in directories(config):
        _ensure(config, place)


def _ensure(config: Config, place: Path) -> None:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(place):
        if shared(config):
            _agree(place, common(config, place, time.time()))
            return
        if not any(number for number in _numbers(place)):
            _write(place, "1")
        if not (place / STAGED).exists():
            _write(place, STAGED)


def shared(config: Config) -> bool:
    """Whether other controllers must have the same keys."""
    return len(config.api.controllers) > 1


def common(config: Config, place: Path, now: float) -> dict[str, bytes]:
    """The keys that every controller has at this time, by the names of their files."""
    secret = secrets.load(config.etc).host_secret
    rotates = place == directory(config)
    period = int(now // max(config.identity.key_rotation_seconds, 1)) if rotates else 1
    numbers = range(max(1, period - keys_kept(config) + 2), period + 1)
    named = {STAGED: period + 1} | {str(number): number for number in numbers}
    return {name: _common_key(secret, place.name, number) for name, number in named.items()}


def _common_key(secret: str, place: str, number: int) -> bytes:
    return base64.urlsafe_b64encode(bytes.fromhex(secrets.sign(secret, f"{place}:{number}")))


def _agree(place: Path, wanted: Mapping[str, bytes]) -> None:
    """The primary key before the staged one, which it was.  What has sealed a credential stays."""
    if place.name != TOKENS and any(_numbers(place)):
        return
    for name in sorted(wanted, key=int, reverse=True):
        if not (place / name).exists() or (place / name).read_bytes() != wanted[name]:
            _write(place, name, wanted[name])
    for number in _numbers(place):
        if str(number) not in wanted:
            (place / str(number)).unlink()


def rotate(config: Config) -> None:
    """Staged becomes primary, a new staged key is made, the oldest are forgotten."""
    with _locked(directory(config)) as place:
        _rotate(place, keys_kept(config))


def rotation_loop(config: Config) -> Reconciler[float]:
    """Rotates when the staged key has waited ``key_rotation_seconds``; the lock keeps other workers out."""
    place, seconds = directory(config), config.identity.key_rotation_seconds

    def read() -> dict[str, float]:
        ensure(config)
        return {"keys": (place / STAGED).stat().st_mtime}

    def reconcile(_: float) -> Later:
        if shared(config):  # ``read`` has seen to it
            return Later(max(1.0, seconds - time.time() % max(seconds, 1)), "this period's key is made")
        with _locked(place):
            waited = time.time() - (place / STAGED).stat().st_mtime
            if waited >= seconds:
                _rotate(place, keys_kept(config))
                waited = 0.0
        return Later(max(1.0, seconds - waited), "the staged key is young")

    return Reconciler("keystone.keys", read, reconcile, resync_seconds=min(600.0, max(1.0, seconds / 10)))


@dataclass(frozen=True)
class Keyrings:
    """What keystone's handlers seal with."""

    tokens: "Keyring"
    credentials: "Keyring"


def keyrings(config: Config) -> Keyrings:
    return Keyrings(Keyring(directory(config)), Keyring(credential_directory(config)))


class Keyring:
    """Seals and opens with the keys that are in the directory now."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._read_at = 0
        self._fernet: MultiFernet | None = None

    def seal(self, data: bytes) -> str:
        return self._keys().encrypt(data).rstrip(b"=").decode()

    def open(self, text: bytes) -> bytes | None:
        """What was sealed, or None if no key of ours did."""
        try:
            return self._keys().decrypt(text)
        except InvalidToken:
            return None

    def _keys(self) -> MultiFernet:
        try:
            changed_at = self._place.stat().st_mtime_ns
            if self._fernet is None or changed_at != self._read_at:
                settled = time.time_ns() - changed_at > RACY_NANOSECONDS
                self._fernet, self._read_at = MultiFernet(_load(self._place)), changed_at if settled else 0
        except (OSError, ValueError) as error:
            raise Unavailable(f"the keys of tokens cannot be read from {self._place}: {error}") from error
        return self._fernet


def _load(place: Path) -> list[Fernet]:
    """The primary key first.  A key that vanishes while we look belongs to a rotation; the next look sees it."""
    found = []
    for number in sorted(_numbers(place), reverse=True):
        with suppress(FileNotFoundError):
            found.append(Fernet((place / str(number)).read_bytes()))
    return found


def _numbers(place: Path) -> list[int]:
    return [int(name) for name in os.listdir(place) if name.isascii() and name.isdigit()]


def _rotate(place: Path, kept: int) -> None:
    numbers = sorted(number for number in _numbers(place) if number)
    if (place / STAGED).exists():
        numbers.append(max(numbers, default=0) + 1)
        (place / STAGED).rename(place / str(numbers[-1]))
    _write(place, STAGED)
    for number in numbers[: max(0, len(numbers) - (kept - 1))]:
        (place / str(number)).unlink()


def _write(place: Path, name: str, key: bytes = b"") -> None:
    temporary = place / f".{name}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key or Fernet.generate_key())
        file.flush()
        os.fsync(file.fileno())
    _give(temporary, place)
    temporary.rename(place / name)


def _give(path: Path, like: Path) -> None:
    """Give what root makes to the owner of ``like``: the services that read it do not run as root."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def _locked(place: Path) -> Iterator[Path]:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield place
    finally:
        os.close(descriptor)
