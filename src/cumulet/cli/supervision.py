"""Children that are started again when they end: what the node's parent does all day.

A child that ends soon after its start waits longer and longer for the next one; a child that ran for long is
started again at once.  Whatever keeps it from starting (a program that is missing, too many processes) counts as
an end.  A part that outlived a former parent is no child of this one: it is watched by its pidfd all the same.
"""

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cumulet.cli.record import Member
from cumulet.core import clock
from cumulet.host import process

LOG = logging.getLogger(__name__)
FIRST_DELAY, LONGEST_DELAY, CALM_SECONDS = 0.1, 10.0, 15.0


@dataclass
class Supervised:
    """One child, and when it may be started again."""

    name: str
    start: Callable[[], int]  # returns the pid
    part: bool = False
    clock: Callable[[], float] = time.monotonic
    pid: int = 0
    pidfd: int = -1
    ticks: int = 0
    started_at: str = ""
    starts: int = 0
    delay: float = FIRST_DELAY / 2
    due: float = 0.0
    born: float = 0.0
    problem: str = ""

    def launch(self) -> None:
        """Start it; if that fails, it is due again later."""
        self.starts, self.born = self.starts + 1, self.clock()
        try:
            self.pid = self.start()
            self.pidfd = os.pidfd_open(self.pid)
        except (OSError, process.ProcessError) as error:
            self._rest(f"cannot be started: {error}")
            return
        self.ticks = _ticks(self.pid)
        self.started_at, self.problem = clock.now(), ""

    def ended(self) -> bool:
        return self.pid != 0 and wait_for(self.pidfd, 0)

    def bury(self) -> None:
        """It ended: note how, and when it may start again."""
        code = None
        with contextlib.suppress(ChildProcessError):
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, os.WNOHANG)[1])
        os.close(self.pidfd)
        self._rest(_words(code))

    def member(self) -> Member:
        return Member(self.name, self.pid, self.ticks, self.started_at, self.starts, self.part, self.problem)

    def _rest(self, problem: str) -> None:
        now = self.clock()
        self.delay = FIRST_DELAY if now - self.born > CALM_SECONDS else min(self.delay * 2, LONGEST_DELAY)
        self.problem = problem
        LOG.warning("%s (pid %d) %s; again in %.1f s", self.name, self.pid, problem, self.delay)
        self.pid, self.pidfd, self.ticks, self.due = 0, -1, 0, now + self.delay


def supervise(
    everybody: Sequence[Supervised], stopping: Callable[[], bool], tell: Callable[[list[Member]], None]
) -> None:
    """Start what is due, wait for an end or a signal, and so on until ``stopping``; ``tell`` hears each change."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    told: list[Member] = []
    while not stopping():
        for one in everybody:
            if one.ended():
                one.bury()
            if not one.pid and one.due <= one.clock():
                one.launch()
        members = [one.member() for one in everybody]
        if members != told:
            tell(members)
            told = members
        _wait(everybody, reader)
        _reap_strangers(everybody)


def stop(running: Sequence[Supervised], seconds: float) -> None:
    """SIGTERM to all at once, SIGKILL to those that do not end."""
    for one in running:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(one.pidfd, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    for one in running:
        if not wait_for(one.pidfd, deadline - time.monotonic()):
            LOG.warning("%s does not end; killed", one.name)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
            wait_for(one.pidfd, 1.0)


def wait_for(pidfd: int, seconds: float) -> bool:
    """Whether the process ends within the time."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(max(0.0, seconds) * 1000))


def _ticks(pid: int) -> int:
    """The start time of a process, also of one that has ended and is not yet buried."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _words(code: int | None) -> str:
    if code is None:
        return "ended"
    return f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


def _wait(everybody: Sequence[Supervised], reader: int) -> None:
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    for one in everybody:
        if one.pid:
            poller.register(one.pidfd, select.POLLIN)
    waits = [one.due - one.clock() for one in everybody if not one.pid]
    for descriptor, _ in poller.poll(max(0.0, min(waits)) * 1000 + 1 if waits else None):
        if descriptor == reader:
            os.read(reader, 4096)


def _reap_strangers(everybody: Sequence[Supervised]) -> None:
    """Collect orphans that came to this subreaper: QEMU, dnsmasq, children of dead services."""
    own = {one.pid for one in everybody if one.pid}
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in own:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.si_pid, os.WNOHANG)
