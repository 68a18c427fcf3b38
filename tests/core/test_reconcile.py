"""The loop: one read a pass, four outcomes, hints that only make things sooner."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from cumulet.core.bus import EVERYTHING, LocalBus
from cumulet.core.errors import Retry, Terminal
from cumulet.core.reconcile import Later, Loop, Outcome, Reconciler


@dataclass(frozen=True)
class Thing:
    name: str
    generation: int = 1


@dataclass
class World:
    """Things that are wanted, what happens when they are looked at, and a clock."""

    things: dict[str, Thing] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    reads: int = 0
    tried: list[str] = field(default_factory=list)
    now: float = 0.0
    unreadable: str = ""
    read_seconds: float = 0.0

    def read(self) -> Mapping[str, Thing]:
        self.reads += 1
        self.now += self.read_seconds
        if self.unreadable:
            raise Retry(self.unreadable)
        return dict(self.things)

    def reconcile(self, thing: Thing) -> Later | None:
        self.tried.append(thing.name)
        outcome = self.outcomes.get(thing.name)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def loop(self, **options: Any) -> Loop[Thing]:
        return Loop(Reconciler("things", self.read, self.reconcile, **options), clock=lambda: self.now)

    def pass_after(self, loop: Loop[Thing], seconds: float) -> list[str]:
        self.now += seconds
        self.tried.clear()
        loop.run_once()
        return sorted(self.tried)


def make(*names: str) -> World:
    return World({name: Thing(name) for name in names})


def test_hints_that_follow_a_pass_closely_are_obeyed_together() -> None:
    world = make("a", "b", "c")
    loop = world.loop(spacing=1.0)
    assert world.pass_after(loop, 0) == ["a", "b", "c"]
    loop.wake("a")
    assert world.pass_after(loop, 0.5) == []
    loop.wake("b")
    assert world.pass_after(loop, 0.5) == ["a", "b"]
    world.now += 2.0
    loop.wake("c")
    assert world.pass_after(loop, 0) == ["c"]
    assert world.reads == 3


def test_hints_of_prompt_keys_do_not_wait() -> None:
    world = make("a", "b")
    loop = world.loop(spacing=1.0, prompt=frozenset({"a"}))
    world.pass_after(loop, 0)
    loop.wake(EVERYTHING)
    loop.wake("a")
    assert world.pass_after(loop, 0) == ["a"]
    assert world.pass_after(loop, 0.5) == []
    assert world.pass_after(loop, 0.5) == ["a", "b"]


def test_hints_for_everything_are_gathered_longer() -> None:
    world = make("a", "b")
    loop = world.loop(spacing=0.25, gathering=1.0)
    world.pass_after(loop, 0)
    loop.wake(EVERYTHING)
    loop.wake("a")
    assert world.pass_after(loop, 0.25) == ["a"]
    assert world.pass_after(loop, 0.5) == []
    assert world.pass_after(loop, 0.25) == ["a", "b"]


def test_they_are_gathered_longer_where_reading_takes_long() -> None:
    """Up to ten times as long, while what is one's own is read as ever."""
    world = make("a", "b")
    loop = world.loop(spacing=0.25, gathering=1.0)
    world.read_seconds = 0.08
    world.pass_after(loop, 0)
    loop.wake(EVERYTHING)
    loop.wake("a")
    assert world.pass_after(loop, 0.25) == ["a"]
    assert world.pass_after(loop, 3.0) == []
    assert world.pass_after(loop, 0.75) == ["a", "b"]
    world.read_seconds = 3.0
    loop.wake(EVERYTHING)
    assert world.pass_after(loop, 4.0) == ["a", "b"]
    loop.wake(EVERYTHING)
    assert world.pass_after(loop, 6.0) == []
    assert world.pass_after(loop, 1.0) == ["a", "b"]


def test_a_full_pass_at_start_and_then_only_at_the_resync() -> None:
    world = make("a", "b")
    loop = world.loop(resync_seconds=30)
    assert world.pass_after(loop, 0) == ["a", "b"]
    assert world.pass_after(loop, 29) == []
    assert world.reads == 1
    assert world.pass_after(loop, 2) == ["a", "b"]


def test_a_hint_brings_its_key_forward_with_one_read() -> None:
    world = make("a", "b")
    bus = LocalBus()
    loop = world.loop(topics=("things",))
    loop.listen(bus)
    world.pass_after(loop, 0)
    bus.hint("things", "b")
    bus.hint("things", "b")
    assert world.pass_after(loop, 1) == ["b"]
    assert world.reads == 2


@pytest.mark.parametrize("key", [EVERYTHING, "unknown"])
def test_a_hint_for_everything_or_for_the_unknown_is_a_full_pass(key: str) -> None:
    world = make("a", "b")
    loop = world.loop()
    world.pass_after(loop, 0)
    loop.wake(key)
    assert world.pass_after(loop, 1) == ["a", "b"]


def test_retry_waits_longer_and_longer_but_a_hint_beats_the_wait() -> None:
    world = make("a")
    world.outcomes["a"] = Retry("ports are not wired")
    loop = world.loop(resync_seconds=1000)
    tries = []
    for _ in range(100):
        if world.pass_after(loop, 0.5):
            tries.append(world.now)
    gaps = [round(b - a, 1) for a, b in itertools.pairwise(tries)]
    assert gaps[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert max(gaps) <= 10.5
    failure = loop.failures["a"]
    assert (failure.kind, failure.reason, failure.tries) == ("waiting", "ports are not wired", len(tries))
    world.outcomes["a"] = None
    loop.wake("a")
    assert world.pass_after(loop, 0) == ["a"]
    assert loop.failures == {}


def test_a_full_pass_leaves_a_key_that_waits_in_peace() -> None:
    world = make("a", "b")
    world.outcomes["a"] = Later(100, "cooling")
    loop = world.loop(resync_seconds=30)
    world.pass_after(loop, 0)
    assert world.pass_after(loop, 31) == ["b"]
    assert world.pass_after(loop, 70) == ["a", "b"]
    assert loop.failures == {}


def test_terminal_is_not_tried_again_until_the_generation_changes() -> None:
    world = make("a")
    world.outcomes["a"] = Terminal("the image is refused")
    loop = world.loop(resync_seconds=10)
    world.pass_after(loop, 0)
    loop.wake("a")
    assert world.pass_after(loop, 11) == []
    world.things["a"] = Thing("a", generation=2)
    assert world.pass_after(loop, 11) == ["a"]


def test_a_bug_is_reported_and_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    world = make("a", "b")
    world.outcomes["a"] = ZeroDivisionError("boom")
    loop = world.loop()
    assert world.pass_after(loop, 0) == ["a", "b"]
    assert loop.failures["a"].kind == "failed"
    assert "boom" in caplog.text
    assert list(loop.status().failing) == ["a"]


def test_an_unreadable_intent_touches_nothing_and_is_shown() -> None:
    world = make("a")
    loop = world.loop()
    world.unreadable = "neutron-server does not answer"
    assert world.pass_after(loop, 0) == []
    assert loop.status().read_failure == "neutron-server does not answer"
    assert world.pass_after(loop, 0.1) == []
    world.unreadable = ""
    assert world.pass_after(loop, 1) == ["a"]
    assert loop.status().read_failure == ""


def test_what_is_gone_is_forgotten() -> None:
    world = make("a")
    world.outcomes["a"] = Retry("no")
    loop = world.loop()
    world.pass_after(loop, 0)
    del world.things["a"]
    loop.wake("a")
    world.pass_after(loop, 1)
    assert loop.failures == {}


def test_all_keys_at_once_each_with_its_outcome() -> None:
    world = make("a", "b")
    seen: list[list[str]] = []

    def together(due: Mapping[str, Thing]) -> Mapping[str, Outcome]:
        seen.append(sorted(due))
        return {"a": Retry("no device")}

    loop = Loop(Reconciler("wires", world.read, reconcile_all=together), clock=lambda: world.now)
    loop.run_once()
    assert seen == [["a", "b"]]
    assert list(loop.failures) == ["a"]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_thread_works_until_it_is_stopped(workers: int) -> None:
    import threading

    world, done = make("a", "b", "c"), threading.Event()

    def reconcile(thing: Thing) -> None:
        world.reconcile(thing)
        if len(world.tried) >= 3:
            done.set()

    loop = Loop(Reconciler("things", world.read, reconcile, workers=workers))
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert done.wait(10)
    loop.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert sorted(world.tried) == ["a", "b", "c"]


def test_a_hint_while_a_key_is_being_worked_on_is_not_lost() -> None:
    world = make("a")
    hints: list[Callable[[], None]] = []

    def reconcile(thing: Thing) -> None:
        world.tried.append(thing.name)
        if hints:
            hints.pop()()

    loop = Loop(Reconciler("things", world.read, reconcile, resync_seconds=1000), clock=lambda: world.now)
    hints.append(lambda: loop.wake("a"))
    assert world.pass_after(loop, 0) == ["a"]
    assert world.pass_after(loop, 0) == ["a"]
    assert world.pass_after(loop, 0) == []
