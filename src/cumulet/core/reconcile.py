"""The control loop that every agent and engine runs.

A reconciler reads the intent of everything it is responsible for and closes the gap, key by key.  It is told
neither what changed nor why it was called: a hint, the timer, a restart and a rival replica all look the same,
so there is one code path to test, and it runs all day.

Four outcomes and no more, for each key:

- **done**: ``None`` is returned; nothing is due until a hint or the next full pass.
- **later**: ``Later(seconds, reason)`` is returned; all is well, look again then.
- **failed**: ``Retry`` (somebody else must act first), ``Unavailable`` (the database does not answer) or a bug;
  tried again with growing delays.
- **never**: ``Terminal``; not tried again until the intent's ``generation`` changes.

``failures`` is what an operator sees: for each key that is not right yet, why, how often it was tried, since
when and when it is due again.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from msgspec import Struct

from cumulet.core import clock
from cumulet.core.bus import EVERYTHING, Bus
from cumulet.core.context import REQUEST_ID, new_request_id
from cumulet.core.errors import Retry, Terminal, Unavailable
from cumulet.core.metrics import FAILING, PASSES

LOG = logging.getLogger(__name__)
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
LONGEST_RETRY = 10.0
READS_APART = 50
"""How many times as long as it took lies between two reads for the sake of others."""

Intent = TypeVar("Intent")


@dataclass(frozen=True)
class Later:
    seconds: float
    reason: str = ""


Outcome = Later | Retry | Terminal | Exception | None


@dataclass(frozen=True)
class Reconciler(Generic[Intent]):
    """What a loop runs.  Give either ``reconcile`` (one key) or ``reconcile_all`` (all keys that are due).

    ``read`` returns everything this reconciler is responsible for in one read; it may raise ``Retry`` when the
    controller does not answer: then nothing is touched.  ``reconcile_all`` gives an outcome for each key
    that is not done.  ``before`` runs once a pass, after ``read`` (look at the host once, not per key).
    With ``workers`` above 1 keys are worked off side by side, one key never twice at once.  Without ``events``
    the service's own source of events (libvirt, OVSDB) does not wake it.  A hint that comes less than ``spacing``
    seconds after a pass began waits for the rest of them: the first of many is obeyed at once, those that follow it
    closely, together.  Those that name one of the ``prompt`` keys never wait, those that name none (``EVERYTHING``)
    wait for ``gathering`` seconds, if that is longer, and up to ten times as long where ``read`` takes its time:
    what others are told of must not keep the controller from those whose own it is.
    """

    name: str
    read: Callable[[], Mapping[str, Intent]]
    reconcile: Callable[[Intent], Later | None] | None = None
    reconcile_all: Callable[[Mapping[str, Intent]], Mapping[str, Outcome]] | None = None
    before: Callable[[Mapping[str, Intent]], None] | None = None
    topics: tuple[str, ...] = ()
    resync_seconds: float = 30.0
    workers: int = 1
    events: bool = True
    spacing: float = 0.0
    gathering: float = 0.0
    prompt: frozenset[str] = frozenset()


@dataclass
class Failure:
    """Why a key is not right yet."""

    reason: str
    kind: str  # 'waiting', 'failed' or 'terminal'
    tries: int
    since: str
    next_try: float  # on the loop's clock; infinite for 'terminal'
    generation: Any = None


class KeyStatus(Struct):
    """A ``Failure`` as it is told: ``next_try_seconds`` from now, None if it is not tried again."""

    reason: str
    kind: str
    tries: int
    since: str
    next_try_seconds: float | None


class LoopStatus(Struct):
    """What ``cumulet loops``, ``why`` and ``doctor`` print of a loop; ``failing`` may be the first few."""

    name: str
    last_pass: str
    keys: int
    read_failure: str
    failing: dict[str, KeyStatus]


@dataclass
class Loop(Generic[Intent]):
    """Runs one reconciler: one read per pass, each key at most once a pass, failed keys later and later."""

    reconciler: Reconciler[Intent]
    clock: Callable[[], float] = time.monotonic
    failures: dict[str, Failure] = field(default_factory=dict)
    last_pass: str = ""
    keys: int = 0
    read_failure: str = ""
    _due: dict[str, float] = field(default_factory=dict)
    _busy: set[str] = field(default_factory=set)
    _next_resync: float = float("-inf")
    _began: float = float("-inf")
    _read_seconds: float = 0.0
    _read_tries: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stopping: bool = False
    _pool: ThreadPoolExecutor | None = None

    def listen(self, bus: Bus) -> None:
        for topic in self.reconciler.topics:
            bus.listen(topic, self.wake)

    def wake(self, key: str = EVERYTHING) -> None:
        """Look at ``key`` as soon as possible; safe from any thread, and as often as one likes."""
        with self._changed:
            now = self.clock()
            soonest = now if key in self.reconciler.prompt else max(now, self._began + self._rest(key))
            self._due[key] = min(self._due.get(key, soonest), soonest)
            self._changed.notify_all()

    def _rest(self, key: str) -> float:
        spacing, gathering = self.reconciler.spacing, self.reconciler.gathering
        if key != EVERYTHING:
            return spacing
        return max(spacing, gathering, min(self._read_seconds * READS_APART, gathering * 10))

    def run(self) -> None:
        """Work until ``stop``; the body of a thread."""
        if self.reconciler.workers > 1:
            self._pool = ThreadPoolExecutor(self.reconciler.workers, thread_name_prefix=self.reconciler.name)
        while not self._stopping:
            self.run_once()
            with self._changed:
                if not self._stopping and (wait := self.seconds_to_next()) > 0:
                    self._changed.wait(wait)
        if self._pool:
            self._pool.shutdown(wait=True)

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def resync(self) -> None:
        """Make the next pass a full one."""
        with self._changed:
            self._next_resync = float("-inf")
            self._changed.notify_all()

    def run_once(self) -> None:
        """One pass over every key that is due now; nothing, not even a read, if none is."""
        now = self.clock()
        with self._changed:
            ready = {key for key, at in self._due.items() if at <= now and key not in self._busy}
            full = now >= self._next_resync
        if not ready and not full:
            return
        self._began = now
        REQUEST_ID.set(new_request_id())
        intents = self._read(now)
        if intents is None:
            return
        with self._changed:
            full = full or bool(ready - set(intents))
            if full:
                self._next_resync = now + self.reconciler.resync_seconds
                resting = {key for key in intents if self._due.get(key, now) > now}
                ready |= set(intents) - resting
            for key in ready:
                self._due.pop(key, None)
            for key in [key for key in self.failures if key not in intents]:
                del self.failures[key]
            due = {key: intents[key] for key in intents if key in ready and key not in self._busy}
            due = {key: intent for key, intent in due.items() if not self._given_up(key, intent)}
        self.keys, self.last_pass = len(intents), clock.now()
        PASSES.labels(self.reconciler.name).inc()
        self._work(intents, due)
        FAILING.labels(self.reconciler.name).set(len(self.failures))

    def status(self, most: int | None = None) -> LoopStatus:
        """How it is doing; of the keys that fail the first ``most``."""
        with self._changed:
            failures = list(self.failures.items())[:most]
            failing = {key: self._told(failure) for key, failure in failures}
        return LoopStatus(self.reconciler.name, self.last_pass, self.keys, self.read_failure, failing)

    def _told(self, failure: Failure) -> KeyStatus:
        left = None if failure.kind == "terminal" else round(max(0.0, failure.next_try - self.clock()), 1)
        return KeyStatus(failure.reason, failure.kind, failure.tries, failure.since, left)

    def seconds_to_next(self) -> float:
        """Until something is due; negative if it is overdue."""
        soonest = min((at for key, at in self._due.items() if key not in self._busy), default=self._next_resync)
        return min(soonest, self._next_resync) - self.clock()

    def _read(self, now: float) -> Mapping[str, Intent] | None:
        """The intent, or None when it cannot be read: then nothing on the host is touched."""
        try:
            intents = self.reconciler.read()
            self._read_seconds = self.clock() - now
            if self.reconciler.before:
                self.reconciler.before(intents)
        except (Retry, Unavailable) as reason:
            self.read_failure = str(reason)
        except Exception as error:
            LOG.exception("%s: cannot read", self.reconciler.name)
            self.read_failure = repr(error)
        else:
            if self._read_tries:
                LOG.info("%s: reads again", self.reconciler.name)
            self.read_failure, self._read_tries = "", 0
            return intents
        self._read_tries += 1
        if self._read_tries == 1:
            LOG.warning("%s: %s", self.reconciler.name, self.read_failure)
        delay = min(FIRST_DELAY * 2 ** min(self._read_tries - 1, 10), 5.0)
        with self._changed:
            self._next_resync = now + delay
            for key in self._due:
                self._due[key] = max(self._due[key], now + delay)
        return None

    def _given_up(self, key: str, intent: Intent) -> bool:
        failure = self.failures.get(key)
        return (
            failure is not None
            and failure.kind == "terminal"
            and failure.generation == getattr(intent, "generation", None)
        )

    def _work(self, intents: Mapping[str, Intent], due: Mapping[str, Intent]) -> None:
        if self.reconciler.reconcile_all is not None:
            if due:
                self._attempt_all(due)
            return
        for key, intent in due.items():
            if self._pool is None:
                self._settle(key, intent, self._attempt(key, intent))
            else:
                self._busy.add(key)
                self._pool.submit(self._attempt_aside, key, intent)

    def _attempt_aside(self, key: str, intent: Intent) -> None:
        outcome = self._attempt(key, intent)
        with self._changed:
            self._busy.discard(key)
            self._settle(key, intent, outcome)
            self._changed.notify_all()

    def _attempt(self, key: str, intent: Intent) -> Outcome:
        assert self.reconciler.reconcile is not None
        REQUEST_ID.set(getattr(intent, "request_id", "") or new_request_id())
        try:
            return self.reconciler.reconcile(intent)
        except (Retry, Terminal, Unavailable) as reason:
            return reason
        except Exception as error:
            LOG.exception("%s: %s failed", self.reconciler.name, key)
            return error

    def _attempt_all(self, due: Mapping[str, Intent]) -> None:
        assert self.reconciler.reconcile_all is not None
        outcomes: Mapping[str, Outcome]
        try:
            outcomes = self.reconciler.reconcile_all(due)
        except (Retry, Terminal, Unavailable) as reason:
            outcomes = dict.fromkeys(due, reason)
        except Exception as error:
            LOG.exception("%s failed", self.reconciler.name)
            outcomes = dict.fromkeys(due, error)
        for key, intent in due.items():
            self._settle(key, intent, outcomes.get(key))

    def _settle(self, key: str, intent: Intent, outcome: Outcome) -> None:
        with self._changed:
            if isinstance(outcome, Exception):
                self._note(key, intent, outcome)
                return
            if self.failures.pop(key, None):
                LOG.info("%s: %s is right again", self.reconciler.name, key)
            if outcome is not None:
                self._due.setdefault(key, self.clock() + outcome.seconds)

    def _note(self, key: str, intent: Intent, outcome: Exception) -> None:
        """Remember why ``key`` is not right, and when to try again."""
        kind = {Retry: "waiting", Unavailable: "waiting", Terminal: "terminal"}.get(type(outcome), "failed")
        reason = str(outcome) if kind != "failed" else f"{type(outcome).__name__}: {outcome}"
        past = self.failures.get(key)
        tries = past.tries + 1 if past else 1
        longest = LONGEST_RETRY if kind == "waiting" else LONGEST_DELAY
        delay = min(FIRST_DELAY * 2 ** min(tries - 1, 10), longest) if kind != "terminal" else float("inf")
        since = past.since if past and past.reason == reason else clock.now()
        generation = getattr(intent, "generation", None)
        if not past or past.reason != reason:
            LOG.info("%s: %s is %s: %s", self.reconciler.name, key, kind, reason)
        self.failures[key] = Failure(reason, kind, tries, since, self.clock() + delay, generation)
        if kind != "terminal":
            self._due.setdefault(key, self.clock() + delay)
