"""A crew: one thread that runs many loops, each when it is due."""

import threading
from collections.abc import Mapping

from cumulet.core.errors import Retry
from cumulet.core.reconcile import Later, Reconciler
from cumulet.sim.fleet import Crew, SharedLoop

SECONDS = 10.0


def test_each_loop_runs_when_it_is_due_and_when_it_is_woken() -> None:
    crew, done = Crew(), threading.Semaphore(0)
    seen: list[str] = []

    def loop(name: str) -> SharedLoop:
        def reconcile(key: str) -> None:
            seen.append(name)
            done.release()

        return SharedLoop(Reconciler(name, lambda: {"it": "it"}, reconcile, resync_seconds=3600.0), crew)

    first, second = loop("first"), loop("second")
    threading.Thread(target=crew.run, daemon=True).start()
    for one in (first, second):
        crew.call(one)
    assert done.acquire(timeout=SECONDS)
    assert done.acquire(timeout=SECONDS)
    assert sorted(seen) == ["first", "second"]
    second.wake("it")
    assert done.acquire(timeout=SECONDS)
    assert seen[2:] == ["second"]


def test_what_is_not_done_is_looked_at_again() -> None:
    crew, done = Crew(), threading.Event()
    answers: list[Later | Retry | None] = [Later(0.01, "soon"), Retry("not yet"), None]

    def reconcile(key: str) -> Later | None:
        answer = answers.pop(0)
        if not answers:
            done.set()
        if isinstance(answer, Retry):
            raise answer
        return answer

    def read() -> Mapping[str, str]:
        return {"it": "it"}

    threading.Thread(target=crew.run, daemon=True).start()
    crew.call(SharedLoop(Reconciler("one", read, reconcile, resync_seconds=3600.0), crew))
    assert done.wait(SECONDS)
