"""Hints between nodes, through RabbitMQ: a topic exchange, and for each process that listens a queue of its own.

Nothing of it lasts: messages are kept in memory only, and a queue goes with its connection.  Who hints never waits:
hints that cannot be sent yet are kept, once each and not many, and the rest is lost.  A listener cannot know what
it missed while it had no connection, so it is told to look at everything each time it has one again.

Processes of one node hear each other by ``SocketBus``, with the broker or without; ``NodeBus`` is both.  So a
message of the same node is not heard a second time here.
"""

import ssl
import threading
from collections import defaultdict
from typing import Any

import pika

from cumulet.core.amqp import Link
from cumulet.core.broker import HINTS
from cumulet.core.bus import EVERYTHING, LONGEST_HINT, Bus, Listener, check_topic

MOST_WAITING = 1000
LONGEST_QUEUE = 10_000


class AmqpBus:
    """Hints from and to the processes of other nodes than ``node``."""

    def __init__(self, url: str, node: str, service: str = "", trust: ssl.SSLContext | None = None) -> None:
        self._node = node
        self._link = Link(url, f"{service} on {node}", self._opened, self._closed, self._pause, trust)
        self._lock = threading.Lock()
        self._listeners: dict[str, list[Listener]] = defaultdict(list)
        self._waiting: dict[tuple[str, str], None] = {}
        self._flushing = False
        self._started = False
        # What only the link's thread touches:
        self._channel: Any = None
        self._queue: str | None = None  # empty: being made
        self._paused = False

    def listen(self, topic: str, listener: Listener) -> None:
        check_topic(topic)
        with self._lock:
            self._listeners[topic].append(listener)
        self._start()
        self._link.soon(lambda: self._bind(topic))

    def hint(self, topic: str, key: str) -> None:
        check_topic(topic)
        with self._lock:
            if len(self._waiting) < MOST_WAITING:
                self._waiting[(topic, key)] = None
            wake, self._flushing = not self._flushing, True
        self._start()
        if wake and not self._link.soon(self._flush):
            self._flushing = False

    def stop(self) -> None:
        self._link.stop()

    def _start(self) -> None:
        """The connection is made when it is needed first, after the fork."""
        with self._lock:
            first, self._started = not self._started, True
        if first:
            self._link.start()

    def _opened(self, channel: Any) -> None:
        self._channel, self._paused = channel, False
        channel.exchange_declare(HINTS, "topic", durable=False, callback=lambda _: self._flush())
        if self._listeners:
            self._make_queue()

    def _closed(self) -> None:
        self._channel, self._queue = None, None

    def _pause(self, paused: bool) -> None:
        """The broker is short of memory or disk, and takes nothing."""
        self._paused = paused
        if not paused:
            self._flush()

    def _make_queue(self) -> None:
        self._queue = ""
        options = {"x-max-length": LONGEST_QUEUE}
        self._channel.queue_declare(
            "", exclusive=True, auto_delete=True, arguments=options, callback=self._queue_made
        )

    def _queue_made(self, answer: Any) -> None:
        self._queue = answer.method.queue
        self._channel.basic_consume(self._queue, self._receive, auto_ack=True)
        for topic in list(self._listeners):
            self._bind(topic)

    def _bind(self, topic: str) -> None:
        """Hear of this topic from now on; what was before may have been missed."""
        if self._channel is None:
            return
        if self._queue is None:
            self._make_queue()
        elif self._queue:
            self._channel.queue_bind(self._queue, HINTS, topic, callback=lambda _: self._tell(topic, EVERYTHING))

    def _receive(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if properties.app_id != self._node:
            self._tell(method.routing_key, body.decode(errors="replace"))

    def _tell(self, topic: str, key: str) -> None:
        for listener in list(self._listeners.get(topic, ())):
            listener(key)

    def _flush(self) -> None:
        with self._lock:
            self._flushing = False
            if self._channel is None or not self._channel.is_open or self._paused:
                return
            waiting, self._waiting = self._waiting, {}
        properties = pika.BasicProperties(app_id=self._node)
        for topic, key in waiting:
            self._channel.basic_publish(HINTS, topic, key.encode()[:LONGEST_HINT], properties)


class NodeBus:
    """Hints within the node by ``near``, to and from other nodes by ``far``."""

    def __init__(self, near: Bus, far: Bus) -> None:
        self._near, self._far = near, far

    def listen(self, topic: str, listener: Listener) -> None:
        self._near.listen(topic, listener)
        self._far.listen(topic, listener)

    def hint(self, topic: str, key: str) -> None:
        self._near.hint(topic, key)
        self._far.hint(topic, key)
