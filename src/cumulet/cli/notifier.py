"""cumulet-notifier: keeps the outbox of notifications, on each controller.

``relay`` takes what was written there to RabbitMQ, where there is a broker; ``history`` forgets what is older
than a week, told or not, so that the outbox is bounded whoever reads it.  With the broker away, what happens waits
in the outbox, and nobody else notices.
"""

import ssl
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from cumulet.core import broker, certificates, clock, outbox
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import OUTBOX, Database
from cumulet.core.errors import Retry
from cumulet.core.outbox import Message
from cumulet.core.reconcile import Later, Reconciler
from cumulet.core.service import Service

if TYPE_CHECKING:  # a cloud without a broker does not load what talks to one
    from cumulet.core.amqp_publisher import Publisher

NAME = "cumulet-notifier"
KEY = "outbox"
KEEP_SECONDS = 7 * 86400
TIDY_SECONDS = 3600.0
MOST_FORGOTTEN = 200


class Telling(Protocol):
    def publish(self, messages: Sequence[Message]) -> None: ...


class Relay:
    """One of several that may run, each with a name of its own."""

    def __init__(self, db: Database, publisher: Telling) -> None:
        self._db, self._publisher, self._name = db, publisher, str(uuid.uuid4())

    def reconciler(self, resync_seconds: float) -> Reconciler[str]:
        return Reconciler("relay", lambda: {KEY: KEY}, self.relay, topics=(OUTBOX,), resync_seconds=resync_seconds)

    def relay(self, _: str) -> Later | None:
        """One batch, the oldest first."""
        rows = outbox.claim(self._db, self._name)
        if not rows:
            return None
        try:
            self._publisher.publish([outbox.message(row) for row in rows])
        except Retry:
            outbox.release(self._db, rows)
            raise
        outbox.settle(self._db, rows)
        return Later(0.0, "more to tell") if len(rows) == outbox.BATCH else None


def history(db: Database) -> Reconciler[str]:
    def forget(_: str) -> Later | None:
        with db.transaction() as tx:
            count = outbox.forget(tx, clock.later(-KEEP_SECONDS), MOST_FORGOTTEN)
        return Later(1.0, "more to forget") if count == MOST_FORGOTTEN else None

    return Reconciler("history", lambda: {KEY: KEY}, forget, resync_seconds=TIDY_SECONDS, events=False)


def build(env: ControllerEnv) -> Service:
    if not env.config.broker.url:
        return Service(loops=[history(env.db)])
    url = broker.complete_url(env.config.broker.url, broker.CONTROLLERS, env.secrets.broker_password)
    publisher = make_publisher(url, env.config.node.name, certificates.broker_trust(env.config))
    relay = Relay(env.db, publisher).reconciler(env.config.agents.resync_seconds)
    return Service(
        loops=[relay, history(env.db)],
        start=lambda wake: publisher.start(lambda: wake(KEY)),
        stop=publisher.stop,
    )


def make_publisher(url: str, node: str, trust: ssl.SSLContext | None = None) -> "Publisher":
    from cumulet.core.amqp_publisher import Publisher

    exchanges = (*outbox.EXCHANGES.values(), outbox.OTHER_EXCHANGE)
    return Publisher(url, f"{NAME} on {node}", exchanges, outbox.ROUTING_KEYS, trust)
