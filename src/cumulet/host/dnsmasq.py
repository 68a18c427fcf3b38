"""One dnsmasq in a namespace: kept running with the wanted arguments and files, and found again by its pid file.

It goes on when its agent ends.  Files are written before it is told; a dnsmasq whose arguments no longer fit is
started anew, one whose files changed reads them again.  ``directory`` is dnsmasq's own and tells it from others.
"""

import contextlib
import hashlib
import os
import pwd
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from cumulet.host import netns, process

LEASES = "leases"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def ensure(namespace: str, directory: Path, arguments: Sequence[str], files: Mapping[str, str]) -> bool:
    """Run with these arguments and files; True when it had to be started.  ProcessError if it does not start."""
    _prepare(directory)
    changed = [name for name, text in files.items() if _write(directory / name, text)]
    pidfile, fingerprint = str(directory / "pid"), _fingerprint(arguments)
    running = process.find(pidfile, str(directory))
    kept = directory / "digest"
    same = kept.exists() and kept.read_text() == fingerprint
    if running and same and netns.holds(namespace, running.pid):
        if changed:
            process.send(pidfile, str(directory), signal.SIGHUP)
        return False
    process.terminate(pidfile, str(directory))
    _write(directory / "digest", fingerprint)
    process.start_daemon([*arguments, f"--pid-file={pidfile}", f"--user={_user()}"], netns_name=namespace)
    return True


def end(directory: Path) -> None:
    process.terminate(str(directory / "pid"), str(directory))


def _fingerprint(arguments: Sequence[str]) -> str:
    """Changes when dnsmasq must be started anew, not when it only must read its files again."""
    return hashlib.blake2b("\0".join(arguments).encode(), digest_size=8).hexdigest()


def _prepare(directory: Path) -> None:
    """dnsmasq, which guests speak to, owns the directory: no link in it may lead us anywhere."""
    owner = pwd.getpwnam(_user()).pw_uid
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(directory / LEASES, _NEW, 0o600))
    os.chown(directory / LEASES, owner, -1, follow_symlinks=False)
    directory.chmod(0o750)
    os.chown(directory, owner, -1)


def _write(path: Path, text: str) -> bool:
    """Write by rename if the content differs; True when it did."""
    if path.exists() and path.read_text() == text:
        return False
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, _NEW, 0o644), "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
    temporary.rename(path)
    return True


def _user() -> str:
    try:
        pwd.getpwnam("dnsmasq")
    except KeyError:
        return "nobody"
    return "dnsmasq"
