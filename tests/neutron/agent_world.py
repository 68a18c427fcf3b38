"""What the tests of the DHCP and the L3 agent share: a neutron-server of dictionaries, a clock, a crash button."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from cumulet.core.client import Controller
from cumulet.core.errors import Retry
from cumulet.core.reconcile import Loop, Reconciler
from cumulet.sim.effects import Crash, Effects

T = TypeVar("T")


class FakeController(Controller):
    """Intents by path and key; a report is written into the intent, a tombstone that was obeyed goes."""

    def __init__(self, effects: Effects, path: str) -> None:
        self.effects, self.path = effects, path
        self.intents: dict[str, Any] = {}
        self.seen: dict[str, Any] = {}
        self.reports: list[tuple[str, Any]] = []
        self.away = False

    def get(self, path: str, kind: type[T]) -> T:
        assert path == self.path
        self._check()
        return msgspec.json.decode(msgspec.json.encode(self.intents), type=kind)

    def post(self, path: str, body: Any) -> None:
        assert path == self.path
        self._check()
        for key, seen in body.items():
            with self.effects.effect(f"report {key}"):
                self.reports.append((key, seen))
                self._write(key, seen)

    def _write(self, key: str, seen: Any) -> None:
        intent = self.intents.get(key)
        if intent is None or seen.generation > intent.generation:
            return
        if intent.absent and not seen.running and seen.generation == intent.generation:
            del self.intents[key]
            self.seen.pop(key, None)
            return
        self.intents[key] = msgspec.structs.replace(intent, seen_generation=seen.generation)
        self.seen[key] = seen

    def want(self, key: str, intent: Any) -> None:
        """The next generation of an intent; the agent's reports are kept."""
        past = self.intents.get(key)
        if past is not None:
            intent = msgspec.structs.replace(
                intent, generation=past.generation + 1, seen_generation=past.seen_generation
            )
        self.intents[key] = intent

    def _check(self) -> None:
        if self.away:
            raise Retry("neutron-server does not answer")


class Node:
    """One agent on a simulated host.  ``boot`` starts the process anew: all that it remembered is lost."""

    def __init__(self, effects: Effects, make: Callable[[], Reconciler[Any]]) -> None:
        self.effects, self._make, self.now = effects, make, 0.0
        self.boot()

    def boot(self) -> None:
        self.loop: Loop[Any] = Loop(self._make(), clock=lambda: self.now)

    def settle(self, step: float = 6.0, rounds: int = 60) -> None:
        """Let time pass until nothing changes any more; started anew whenever it crashes."""
        quiet = 0
        for _ in range(rounds):
            before = len(self.effects.log)
            try:
                self.loop.run_once()
            except Crash:
                self.boot()
            self.now += step
            quiet = quiet + 1 if len(self.effects.log) == before else 0
            if quiet == 12:
                return
        raise AssertionError(f"does not settle: {self.effects.log[-10:]}")
