"""Long-lived daemons of an agent, such as dnsmasq: started in a namespace, found again, ended.

An agent may die and its daemons go on; the next agent finds them by their pid files. A pid file is believed
only when the process it names is alive (no zombie), holds the marker among its arguments and, if the file
records it, has the start time that was written down; so a recycled pid deceives nobody. Signals go through a
pidfd and cannot hit a successor.

A child is started by a thread that stands in the namespace, never by `ip netns exec`, which gives the daemon a
copy of the mount table and so pins every filesystem that is mounted at that moment.
"""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cumulet.host import netns

_KILL_SECONDS = 5.0
_WORDS_MAX = 1000


class ProcessError(Exception):
    """A daemon did not start or did not end."""


@dataclass(frozen=True, slots=True)
class Process:
    """A living process; `started` is its start time in clock ticks since boot."""

    pid: int
    started: int


def start(
    argv: Sequence[str],
    pidfile: str,
    netns_name: str | None = None,
    log_path: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a program that stays in the foreground, in a session of its own, and write its pid file.

    Its output is appended to `log_path`. It outlives the caller. It is not looked at again: whether it lives is
    what `find` tells.
    """
    descriptors = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    descriptors.append((os.POSIX_SPAWN_OPEN, 1, log_path or os.devnull, flags, 0o640))
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        *descriptors,
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    with _standing_in(netns_name):
        try:
            pid = os.posix_spawnp(
                argv[0],
                list(argv),
                dict(os.environ if env is None else env),
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            )
        except OSError as error:
            raise ProcessError(f"start {argv[0]}: {error.strerror}") from error
    started = _started(pid)
    if started is None:
        _reap(pid)
        raise ProcessError(f"{argv[0]} ended as soon as it was started")
    partial = f"{pidfile}.new"
    with open(partial, "w", encoding="ascii") as file:
        file.write(f"{pid} {started}\n")
    os.replace(partial, pidfile)
    return Process(pid, started)


def start_daemon(
    argv: Sequence[str],
    netns_name: str | None = None,
    env: Mapping[str, str] | None = None,
    seconds: float = 10.0,
) -> None:
    """Start a program that goes into the background by itself and writes its own pid file (dnsmasq does).

    Returns when the program says that it is ready. Raises ProcessError with its words when it fails.
    """
    with _standing_in(netns_name):
        try:
            done = subprocess.run(
                list(argv),
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"{argv[0]} is not ready after {seconds:g} s") from error
        except OSError as error:
            raise ProcessError(f"start {argv[0]}: {error.strerror}") from error
    if done.returncode:
        words = done.stdout.decode(errors="replace").strip()[-_WORDS_MAX:]
        raise ProcessError(f"{argv[0]} ended with {done.returncode}: {words}")


def look(pid: int) -> Process | None:
    """The living process with this number, and the start time that tells it from a later one; None for a zombie."""
    started = _started(pid)
    return None if started is None else Process(pid, started)


def find(pidfile: str, marker: str) -> Process | None:
    """The living process of a pid file; `marker`, its pid file's path say, must be in one of its arguments."""
    with _hold(pidfile, marker) as held:
        return held[1] if held else None


def send(pidfile: str, marker: str, signum: int) -> bool:
    """Send a signal (SIGHUP for a reload) to the process of a pid file; False when there is none."""
    with _hold(pidfile, marker) as held:
        return held is not None and _signal(held[0], signum)


def terminate(pidfile: str, marker: str, seconds: float = 5.0) -> bool:
    """End the process of a pid file, after `seconds` by force, and remove the file; False when there was none.

    Returns when the process is gone. Raises ProcessError when it cannot be killed (it hangs in the kernel).
    """
    with _hold(pidfile, marker) as held:
        if held is not None:
            pidfd, process = held
            _signal(pidfd, signal.SIGTERM)
            if not _ended(pidfd, seconds):
                _signal(pidfd, signal.SIGKILL)
                if not _ended(pidfd, _KILL_SECONDS):
                    raise ProcessError(f"process {process.pid} ({marker}) does not end after SIGKILL")
            _reap(process.pid)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(pidfile)
    return held is not None


def wait_ended(process: Process, seconds: float) -> bool:
    """Whether the process ended within the time; at once when it is gone already."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        return _started(process.pid) != process.started or _ended(pidfd, seconds)
    finally:
        os.close(pidfd)


def _standing_in(name: str | None) -> contextlib.AbstractContextManager[None]:
    """A child is born in the namespace of the thread that makes it."""
    return contextlib.nullcontext() if name is None else netns.enter(name)


@contextlib.contextmanager
def _hold(pidfile: str, marker: str) -> Iterator[tuple[int, Process] | None]:
    """A pidfd of the process of a pid file. Opened before the process is looked at, so both mean the same one."""
    if not marker:
        raise ProcessError(f"no marker to tell the process of {pidfile} by")
    try:
        with open(pidfile, encoding="ascii", errors="replace") as file:
            numbers = [int(word) for word in file.read().split()[:2]]
        pidfd = os.pidfd_open(numbers[0])
    except (FileNotFoundError, ProcessLookupError, ValueError, IndexError, OverflowError):
        yield None
        return
    except OSError as error:
        raise ProcessError(f"look at {pidfile}: {error.strerror}") from error
    try:
        started = _started(numbers[0])
        recorded = numbers[1] if len(numbers) > 1 else started
        if started is None or started != recorded or not _carries(numbers[0], marker):
            yield None
        else:
            yield pidfd, Process(numbers[0], started)
    finally:
        os.close(pidfd)


def _started(pid: int) -> int | None:
    """The start time of a living process; None for none or a zombie, which is reaped if it is ours."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in ("Z", "X"):
        _reap(pid)
        return None
    return int(fields[19])


def _carries(pid: int, marker: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return any(marker.encode() in argument for argument in file.read().split(b"\0"))
    except (FileNotFoundError, ProcessLookupError):
        return False


def _signal(pidfd: int, signum: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    return True


def _ended(pidfd: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(max(0.0, seconds) * 1000))


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
