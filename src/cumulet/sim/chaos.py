"""A campaign against a simulated cloud: processes die while users ask for everything, and nothing may be lost.

Each round asks for some things.  On the way one process dies before or after a lasting change of its own, whichever
comes then, or a host loses its power, or all hints are lost, or nothing happens.  Then time passes until everything
is as it was promised; what is not so after ten minutes of the simulated clock is ``stuck`` or ``lost``, and what
hosts and tables hold of things that nobody has is ``leaked``.

The same seed gives the same campaign: ids are made from it, too.
"""

import secrets
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import msgspec

from cumulet.sim.effects import Crash
from cumulet.sim.users import Users, broken, leaked
from cumulet.sim.world import World

HOSTS = ("h1", "h2", "h3")
PATIENCE_SECONDS, STEP_SECONDS = 600.0, 1.0
SOON = 12
"""A process dies at one of so many next effects."""


class Report(msgspec.Struct):
    """``problems``: at most twenty of them, with their round; ``slowest_recovery_s`` on the simulated clock."""

    seed: int
    rounds: int = 0
    requests: int = 0
    deaths: int = 0
    power_cuts: int = 0
    stuck: int = 0
    leaked: int = 0
    lost: int = 0
    slowest_recovery_s: float = 0.0
    problems: list[str] = []


class Campaign:
    def __init__(self, place: Path, seed: int) -> None:
        self.random, self.report = Random(seed), Report(seed)
        self.world = World(place, HOSTS)
        self.world.on_death = self._died
        self.world.boot()
        self.users = Users(self.world, self.random, self._died)
        self._just_asked: list[str] = []

    def play(self, rounds: int, tell: Callable[[Report], None] = lambda report: None) -> Report:
        for _ in range(rounds):
            self._round()
            tell(self.report)
        return self.report

    def _round(self) -> None:
        self.report.rounds += 1
        self.world.beat_all()
        self.world.bus.cut = self.random.random() < 0.2
        self._just_asked = []
        for _ in range(self.random.randint(1, 4)):
            if self.random.random() < 0.5:
                when = self.random.choice(("before", "after"))
                self.world.effects.crash_at = (len(self.world.effects.log) + self.random.randrange(SOON), when)
            self._just_asked.append(self.users.act())
            self.report.requests += 1
            if self.random.random() < 0.05:
                self._cut_power(self.random.choice(HOSTS))
            for _ in range(self.random.randint(0, 3)):
                self._pass(self.random.choice((0.1, 1.0, 10.0)))
        self._recover()
        self.world.effects.crash_at = None

    def _recover(self) -> None:
        """Until all is as promised.  Whatever is not so in the end is counted, and put right for the next round."""
        since = self.world.now
        while (found := self._problems()) and self.world.now - since < PATIENCE_SECONDS:
            self._pass(STEP_SECONDS)
        if not found:
            self.users.rest()
        took = self.world.now - since
        self.report.slowest_recovery_s = max(self.report.slowest_recovery_s, round(took, 1))
        for problem in found:
            kind = problem.partition(":")[0]
            setattr(self.report, kind, getattr(self.report, kind) + 1)
            if len(self.report.problems) < 20:
                after = ", ".join(self._just_asked)
                self.report.problems.append(f"round {self.report.rounds}: {problem}, after: {after}")

    def _problems(self) -> list[str]:
        promises = self.users.promises
        return [*broken(self.world, promises), *leaked(self.world, promises)]

    def _pass(self, seconds: float) -> None:
        """Every process does what is due, in some order; who dies is started again."""
        order = list(zip(self.world.loops, self.world.owners, strict=True))
        self.random.shuffle(order)
        for loop, owner in order:
            try:
                loop.run_once()
            except Crash:
                self._died(owner)
        self.world.now += seconds

    def _died(self, process: str) -> None:
        self.report.deaths += 1
        self.world.restart(process)

    def _cut_power(self, name: str) -> None:
        self.report.power_cuts += 1
        self.users.promises.power_cut = True
        self.world.hosts[name].cut_power()
        for owner in sorted({owner for owner in self.world.owners if owner.endswith(f"@{name}")}):
            self.world.restart(owner)


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Ids, MAC addresses, numbers of networks and the scheduler's choices come from the seed."""
    random, real = Random(seed), (uuid.uuid4, secrets.randbits, secrets.randbelow)
    uuid.uuid4 = lambda: uuid.UUID(int=random.getrandbits(128), version=4)
    secrets.randbits = lambda k: random.getrandbits(k)
    secrets.randbelow = lambda exclusive_upper_bound: random.randrange(exclusive_upper_bound)
    try:
        yield
    finally:
        uuid.uuid4, secrets.randbits, secrets.randbelow = real
