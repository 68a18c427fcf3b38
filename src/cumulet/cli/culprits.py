"""Who keeps a thing from being right: the loops that fail on it, agents that do not answer, orders not yet read.

This node's services are asked now; agents elsewhere told theirs with their heartbeats.
"""

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from cumulet.cli.status import Health
from cumulet.core import clock
from cumulet.core.config import Config
from cumulet.core.db import Transaction
from cumulet.core.reconcile import LoopStatus
from cumulet.core.tables import agents

EVERY_KEY = frozenset({"switch"})
"""Keys of loops that stand for everything their host has."""


class Waiting(msgspec.Struct, omit_defaults=True):
    """What has to happen first.

    ``kind``: 'waiting' (somebody else must act), 'failed', 'terminal' (not tried again until the wish changes),
    'silent' (the service does not answer), 'pending' (not acted upon yet).
    """

    service: str
    host: str
    kind: str
    reason: str
    loop: str = ""
    tries: int = 0
    since: str = ""
    next_try_seconds: float | None = None


class Culprits:
    """One look at all services: ``healths`` and ``loops`` of this node's, and what agents elsewhere have told."""

    def __init__(
        self, config: Config, tx: Transaction, healths: Sequence[Health], loops: Mapping[str, list[LoopStatus]]
    ) -> None:
        self._failing: dict[str, list[Waiting]] = {}
        self._trouble: dict[tuple[str, str], Waiting] = {}
        self.here = config.node.name
        for line in healths:
            if not line.answers:
                self._note_trouble(line.name, self.here, "silent", line.problem)
        for service, found in loops.items():
            for loop in found:
                self._note_loop(service, self.here, loop)
                if loop.read_failure:
                    reason = f"cannot read its intent: {loop.read_failure}"
                    self._note_trouble(service, self.here, "waiting", reason, loop=loop.name)
        oldest = clock.later(-config.agents.down_seconds)
        for agent in tx.all(sa.select(agents)):
            if agent.host != self.here:
                for loop in msgspec.convert(agent.loops, list[LoopStatus]):
                    self._note_loop(agent.binary, agent.host, loop)
            if agent.seen_at < oldest:
                self._note_trouble(agent.binary, agent.host, "silent", "gives no sign of life", since=agent.seen_at)

    def of(self, key: str) -> list[Waiting]:
        """The loops that fail on this key, whichever they are."""
        return list(self._failing.get(key, ()))

    def away(self, service: str, host: str) -> list[Waiting]:
        """That ``service`` is silent: what it has seen once may be so no more, and nothing new is done there."""
        trouble = self._trouble.get((service, host))
        return [trouble] if trouble and trouble.kind == "silent" else []

    def behind(self, key: str, service: str, host: str, reason: str, since: str) -> list[Waiting]:
        """Why ``service`` has not done its part for ``key``; at least ``reason``, if it says nothing itself."""
        found = [one for one in self.of(key) if (one.service, one.host) == (service, host)]
        if not found:
            found = [
                one
                for every in EVERY_KEY
                for one in self._failing.get(every, ())
                if (one.service, one.host) == (service, host)
            ]
        trouble = self._trouble.get((service, host))
        if trouble:
            found.append(trouble)
        return found or [Waiting(service, host, "pending", reason, since=since)]

    def _note_loop(self, service: str, host: str, loop: LoopStatus) -> None:
        for key, failure in loop.failing.items():
            waiting = Waiting(service, host, loop=loop.name, **msgspec.structs.asdict(failure))
            self._failing.setdefault(key, []).append(waiting)

    def _note_trouble(
        self, service: str, host: str, kind: str, reason: str, *, since: str = "", loop: str = ""
    ) -> None:
        """The first is the nearest: what a service itself says counts more than its last heartbeat."""
        known = self._trouble.setdefault((service, host), Waiting(service, host, kind, reason, loop, since=since))
        known.since = known.since or since
