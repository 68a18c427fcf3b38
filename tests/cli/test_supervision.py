"""Children that end are started again: at once after a long life, ever later after short ones."""

import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from cumulet.cli import supervision
from cumulet.cli.record import Member
from cumulet.cli.supervision import CALM_SECONDS, LONGEST_DELAY, Supervised
from cumulet.host.process import ProcessError


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def spawn(*words: str) -> Callable[[], int]:
    return lambda: os.posix_spawnp(words[0], words, os.environ)


def run_to_its_end(one: Supervised) -> None:
    one.launch()
    assert supervision.wait_for(one.pidfd, 10)
    one.bury()


def test_what_ends_at_once_waits_longer_and_longer() -> None:
    clock = Clock()
    one = Supervised("short", spawn("true"), clock=clock)
    delays = []
    for _ in range(10):
        run_to_its_end(one)
        delays.append(one.due - clock.now)
        clock.now = one.due
    assert delays[0] == pytest.approx(0.1)
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY
    assert one.starts == 10


def test_what_ran_for_long_is_started_again_at_once() -> None:
    clock = Clock()
    one = Supervised("long", spawn("true"), clock=clock, delay=LONGEST_DELAY)
    one.launch()
    assert supervision.wait_for(one.pidfd, 10)
    clock.now += CALM_SECONDS + 1
    one.bury()
    assert one.due - clock.now == pytest.approx(0.1)


def test_what_cannot_be_started_is_tried_again_and_says_why() -> None:
    def start() -> int:
        raise ProcessError("start ovsdb-server: No such file or directory")

    clock = Clock()
    one = Supervised("ovsdb-server", start, part=True, clock=clock)
    for _ in range(3):
        one.launch()
    assert one.pid == 0
    assert one.due > clock.now
    assert one.member().problem == "cannot be started: start ovsdb-server: No such file or directory"


@pytest.mark.parametrize(
    ("words", "problem"),
    [(("sh", "-c", "exit 3"), "ended with code 3"), (("sh", "-c", "kill -9 $$"), "was ended by SIGKILL")],
)
def test_how_it_ended_is_told(words: tuple[str, ...], problem: str) -> None:
    one = Supervised("one", spawn(*words))
    run_to_its_end(one)
    assert one.member().problem == problem
    assert one.member().pid == 0


def test_the_round_of_a_parent() -> None:
    """A child that ends is started again, an orphan is reaped, each change is told, and a signal ends it all."""
    told: list[list[Member]] = []
    children = [Supervised("short", spawn("true")), Supervised("long", spawn("sleep", "60"))]

    def stopping() -> bool:
        return children[0].starts >= 3

    before = {number: signal.getsignal(number) for number in (signal.SIGCHLD,)}
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        supervision.supervise(children, stopping, told.append)
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert [member.starts for member in told[-1]] == [2, 1] or [member.starts for member in told[-1]] == [3, 1]
    assert any(member.problem == "ended with code 0" for members in told for member in members)
    running = [one for one in children if one.pid]
    supervision.stop(running, 5)
    assert all(one.ended() for one in running)


def test_who_does_not_listen_is_killed() -> None:
    deaf = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], stdout=subprocess.PIPE
    )
    assert deaf.stdout
    deaf.stdout.readline()
    one = Supervised("deaf", lambda: deaf.pid)
    one.launch()
    supervision.stop([one], 0.2)
    assert deaf.wait(5) == -signal.SIGKILL
