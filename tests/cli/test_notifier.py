"""The outbox reaches RabbitMQ whole, in upstream's format, whatever dies in between, and does not grow for ever."""

import functools
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pika
import pytest
import sqlalchemy as sa

from cumulet.cli.notifier import KEY, Relay, history, make_publisher
from cumulet.core import clock, outbox
from cumulet.core.amqp import Link
from cumulet.core.bus import LocalBus
from cumulet.core.context import Context
from cumulet.core.db import OUTBOX, Database
from cumulet.core.errors import Retry
from cumulet.core.outbox import Message
from cumulet.core.reconcile import Loop
from cumulet.core.tables import notifications
from tests import databases
from tests.broker import Broker, broker

__all__ = ["broker"]

SECONDS = 60.0


class Recorder:
    """A publisher whose broker is in memory, and which fails or dies when it is told to."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.refuses = False
        self.meanwhile: Callable[[], object] = lambda: None

    def publish(self, messages: Sequence[Message]) -> None:
        self.meanwhile()
        if self.refuses:
            raise Retry("the broker is away")
        self.told += messages


@pytest.fixture
def db(tmp_path: Path) -> Database:
    found = Database(f"sqlite:///{tmp_path}/test.sqlite", LocalBus())
    databases.make_tables(found.engine)
    return found


def tell(db: Database, *names: str, event: str = "compute.instance.create.end") -> None:
    for name in names:
        with db.transaction() as tx:
            context = Context(user_id="u", project_id="p", request_id=f"req-{name}")
            tx.notify(context, event, "compute.h1", {"instance_id": name})


def names(messages: Sequence[Message]) -> list[str]:
    return [content(one.body)["payload"]["instance_id"] for one in messages]


def content(body: bytes) -> dict[str, Any]:
    """What a consumer reads in a message."""
    envelope = json.loads(body)
    assert envelope["oslo.version"] == "2.0"
    found: dict[str, Any] = json.loads(envelope["oslo.message"])
    return found


def untold(db: Database) -> int:
    with db.read() as tx:
        return int(tx.value(sa.select(sa.func.count()).where(notifications.c.relayed_at.is_(None))))


def test_all_are_told_once_and_in_their_order(db: Database) -> None:
    publisher = Recorder()
    relay = Relay(db, publisher)
    expected = [f"s{number:03}" for number in range(outbox.BATCH + 20)]
    tell(db, *expected)
    assert relay.relay(KEY) is not None  # there is more
    assert relay.relay(KEY) is None
    assert names(publisher.told) == expected
    assert relay.relay(KEY) is None
    assert len(publisher.told) == len(expected)
    assert untold(db) == 0


def test_a_notification_wakes_the_relay(db: Database, tmp_path: Path) -> None:
    bus = LocalBus()
    hinted = Database(f"sqlite:///{tmp_path}/test.sqlite", bus)
    heard: list[str] = []
    bus.listen(OUTBOX, heard.append)
    tell(hinted, "a")
    assert heard == [KEY]


def test_an_outbox_with_nothing_new_is_only_read(db: Database) -> None:
    statements: list[str] = []
    sa.event.listen(db.engine, "before_cursor_execute", lambda *words: statements.append(words[2].split()[0]))
    assert Relay(db, Recorder()).relay(KEY) is None
    assert "SELECT" in statements
    assert not {"INSERT", "UPDATE", "DELETE"} & set(statements)


def test_what_the_broker_did_not_take_is_told_later_by_anybody(db: Database) -> None:
    one, other = Recorder(), Recorder()
    tell(db, "a", "b")
    one.refuses = True
    with pytest.raises(Retry):
        Relay(db, one).relay(KEY)
    Relay(db, other).relay(KEY)
    assert names(other.told) == ["a", "b"]


def test_two_relays_share_without_telling_anything_twice(db: Database) -> None:
    one, other = Recorder(), Recorder()
    first, second = Relay(db, one), Relay(db, other)
    tell(db, *(f"s{number:03}" for number in range(outbox.BATCH + 5)))

    def while_the_first_waits_for_its_broker() -> None:
        second.relay(KEY)
        tell(db, "later")
        second.relay(KEY)

    one.meanwhile = while_the_first_waits_for_its_broker
    first.relay(KEY)
    assert len(one.told) == outbox.BATCH
    assert len(other.told) == 6
    assert len({message.id for message in one.told + other.told}) == outbox.BATCH + 6


def test_a_relay_that_died_before_it_marked_leaves_its_rows_to_others(db: Database) -> None:
    class Killed(BaseException):
        """As the kernel does it."""

    one, other = Recorder(), Recorder()
    tell(db, "a")

    def die() -> None:
        raise Killed

    one.meanwhile = die
    with pytest.raises(Killed):
        Relay(db, one).relay(KEY)
    survivor = Relay(db, other)
    assert survivor.relay(KEY) is None
    assert other.told == []
    with db.transaction() as tx:
        tx.write(sa.update(notifications).values(claim=f"{clock.later(-1)} somebody"))
    survivor.relay(KEY)
    assert names(other.told) == ["a"]
    assert untold(db) == 0


def test_a_message_is_what_consumers_of_openstack_read(db: Database) -> None:
    publisher = Recorder()
    tell(db, "a")
    tell(db, "b", event="compute.instance.create.error")
    with db.transaction() as tx:
        tx.notify(Context(), "identity.user.created", "identity.h1", {"resource_info": "u1"})
        tx.notify(Context(), "port.create.end", "network", {})
        tx.notify(Context(), "image.create", "image.h1", {})
    Relay(db, publisher).relay(KEY)
    assert [(one.exchange, one.routing_key) for one in publisher.told[:2]] == [
        ("nova", "notifications.info"),
        ("nova", "notifications.error"),
    ]
    assert {one.exchange for one in publisher.told[2:]} == {"keystone", "neutron", "glance"}
    read = content(publisher.told[0].body)
    assert read["message_id"] == publisher.told[0].id
    assert (read["event_type"], read["priority"]) == ("compute.instance.create.end", "INFO")
    assert (read["publisher_id"], read["payload"]) == ("compute.h1", {"instance_id": "a"})
    assert (read["_context_user_id"], read["_context_project_id"]) == ("u", "p")
    assert read["_context_request_id"] == "req-a"
    assert len(read["timestamp"]) == len("2026-01-31 23:59:59.123456")
    assert read["_unique_id"]


def test_the_outbox_forgets_after_a_week_bit_by_bit(db: Database) -> None:
    row = {"publisher_id": "p", "event_type": "e", "request_id": "r", "context": {}, "payload": {}}
    week_ago = clock.later(-7 * 86400 - 1)
    with db.transaction() as tx:
        tx.write(notifications.insert(), [{**row, "id": str(n), "created_at": week_ago} for n in range(450)])
    tell(db, "new")
    now = 0.0
    loop = Loop(history(db), clock=lambda: now)
    left = []
    for _ in range(4):
        loop.run_once()
        left.append(untold(db))
        now += 1.5
    assert left == [251, 51, 1, 1]


# ── with RabbitMQ ────────────────────────────────────────────────────────────────────────────────────────────


class Consumer:
    """Reads the queue of notifications for ever; ``seen`` are the events by message id, duplicates dropped."""

    def __init__(self, url: str) -> None:
        self.seen: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._link = Link(url, "consumer", self._opened)
        self._link.start()

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= count, SECONDS), len(self.seen)

    def stop(self) -> None:
        self._link.stop()

    def _opened(self, channel: Any) -> None:
        """As oslo.messaging with ``amqp_durable_queues`` declares it."""
        channel.exchange_declare("nova", "topic", durable=True)
        channel.queue_declare("notifications.info", durable=True)
        channel.queue_bind("notifications.info", "nova", "notifications.info")
        channel.basic_consume("notifications.info", self._read)

    def _read(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        found = content(body)
        assert properties.message_id == found["message_id"]
        with self._changed:
            self.seen[found["message_id"]] = found
            self._changed.notify_all()
        channel.basic_ack(method.delivery_tag)


@pytest.mark.host
def test_nothing_is_lost_before_the_first_consumer_comes(broker: Broker, db: Database) -> None:
    there = threading.Event()
    publisher = make_publisher(broker.url(), "node-1")
    publisher.start(there.set)
    assert there.wait(SECONDS)
    tell(db, "a")
    tell(db, "b", event="compute.instance.create.error")
    Relay(db, publisher).relay(KEY)
    publisher.stop()
    channel = pika.BlockingConnection(pika.URLParameters(broker.url())).channel()
    for queue, name in (("notifications.info", "a"), ("notifications.error", "b")):
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        assert method is not None
        assert properties.delivery_mode == 2
        assert content(body)["payload"]["instance_id"] == name


@pytest.mark.host
def test_a_broker_that_is_killed_in_a_stream_of_notifications_loses_none(broker: Broker, db: Database) -> None:
    loops, publishers, threads = [], [], []
    for number in range(2):  # two controllers
        publisher = make_publisher(broker.url(), f"node-{number}")
        loop = Loop(Relay(db, publisher).reconciler(0.5))
        publisher.start(functools.partial(loop.wake, KEY))
        loops.append(loop)
        publishers.append(publisher)
        threads.append(threading.Thread(target=loop.run))
        threads[-1].start()
    consumer = Consumer(broker.url())
    try:
        for number in range(300):
            tell(db, f"s{number}")
            if number == 100:
                consumer.wait(20)
                broker.kill()
            if number == 200:
                broker.start()
        consumer.wait(300)
        assert {one["payload"]["instance_id"] for one in consumer.seen.values()} == {f"s{n}" for n in range(300)}
    finally:
        consumer.stop()
        for loop in loops:
            loop.stop()
        for publisher in publishers:
            publisher.stop()
        for thread in threads:
            thread.join()
    assert untold(db) == 0
