"""Messages that must not get lost: into RabbitMQ's durable queues, each confirmed by the broker.

Exchanges and queues are declared as upstream's notifiers declare them with ``amqp_durable_queues``: a queue per
priority, bound to every exchange, so that nothing is lost before the first consumer comes.
"""

import ssl
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pika

from cumulet.core.amqp import Link
from cumulet.core.errors import Retry
from cumulet.core.outbox import Message

CONFIRM_SECONDS = 10.0


class _Batch:
    """What is under way: by the broker's numbers, what it has not confirmed yet."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.unconfirmed: set[int] = set()
        self.failure = ""
        self.over = threading.Event()

    def fail(self, reason: str) -> None:
        self.failure = reason
        self.over.set()


def _nobody() -> None:
    """Whom to tell before the start."""


class Publisher:
    def __init__(
        self,
        url: str,
        name: str,
        exchanges: Collection[str],
        queues: Collection[str],
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._link = Link(url, name, self._opened, self._closed, self._pause, trust)
        self._exchanges, self._queues = exchanges, queues
        self._ready: Callable[[], None] = _nobody
        # What only the link's thread touches:
        self._channel: Any = None
        self._paused = False
        self._sent = 0
        self._batch: _Batch | None = None

    def start(self, ready: Callable[[], None]) -> None:
        """``ready`` is called in a thread of the publisher's each time it can publish (again)."""
        self._ready = ready
        self._link.start()

    def stop(self) -> None:
        self._link.stop()

    def publish(self, messages: Sequence[Message]) -> None:
        """Returns when the broker has all of them safe; Retry if it has perhaps not."""
        batch = _Batch(messages)
        if not self._link.soon(lambda: self._send(batch)):
            raise Retry(f"the broker at {self._link.address} is not connected")
        if not batch.over.wait(CONFIRM_SECONDS):
            raise Retry(f"the broker at {self._link.address} does not confirm messages")
        if batch.failure:
            raise Retry(f"the broker at {self._link.address} {batch.failure}")

    def _opened(self, channel: Any) -> None:
        self._sent, self._paused = 0, False
        channel.confirm_delivery(self._confirmed)
        for exchange in self._exchanges:
            channel.exchange_declare(exchange, "topic", durable=True)
        for queue in self._queues:
            channel.queue_declare(queue, durable=True)
            for exchange in self._exchanges:
                channel.queue_bind(queue, exchange, queue)
        channel.basic_qos(prefetch_count=1, callback=lambda _: self._declared(channel))  # the last to be answered

    def _declared(self, channel: Any) -> None:
        self._channel = channel
        self._ready()

    def _closed(self) -> None:
        self._channel = None
        self._fail("went away")

    def _pause(self, paused: bool) -> None:
        self._paused = paused
        if not paused:
            self._ready()

    def _fail(self, reason: str) -> None:
        if self._batch:
            self._batch.fail(reason)
        self._batch = None

    def _send(self, batch: _Batch) -> None:
        self._batch = batch
        if self._channel is None or not self._channel.is_open:
            self._fail("is not ready")
            return
        if self._paused:
            self._fail("takes nothing: it is short of memory or disk")
            return
        for message in batch.messages:
            properties = pika.BasicProperties(
                content_type="application/json", content_encoding="utf-8", delivery_mode=2, message_id=message.id
            )
            self._channel.basic_publish(message.exchange, message.routing_key, message.body, properties)
            self._sent += 1
            batch.unconfirmed.add(self._sent)

    def _confirmed(self, frame: Any) -> None:
        batch, answer = self._batch, frame.method
        if batch is None:
            return
        if isinstance(answer, pika.spec.Basic.Nack):
            self._fail("refuses messages: a queue is full")
            return
        if answer.multiple:
            batch.unconfirmed = {number for number in batch.unconfirmed if number > answer.delivery_tag}
        else:
            batch.unconfirmed.discard(answer.delivery_tag)
        if not batch.unconfirmed:
            self._batch = None
            batch.over.set()
