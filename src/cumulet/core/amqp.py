"""A connection to RabbitMQ, kept by a thread of its own: what hints and notifications go through.

Everything that touches the connection runs in that thread; others leave it work by ``soon`` and never wait for the
broker.  When the connection ends, the next one is tried after about a second, for ever: there is nothing here that
an operator must start again.  What was under way is lost, and each user of a link says why that is harmless.
"""

import logging
import random
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pika
import pika.exceptions

LOG = logging.getLogger(__name__)
LONGEST_PAUSE = 1.5
"""Between two attempts to connect; at least a third of it, so that a thousand hosts do not come at once."""
CONNECT_SECONDS, HEARTBEAT_SECONDS = 2.0, 10


class Link:
    """``opened`` is called in the link's thread with a channel of each new connection, ``closed`` at its end.

    ``blocked`` hears when the broker takes no more messages, and when it takes them again.  ``name`` is what
    operators see in the broker's list of connections.  ``trust`` counts if the URL says amqps.
    """

    def __init__(
        self,
        url: str,
        name: str,
        opened: Callable[[Any], None],
        closed: Callable[[], None] = lambda: None,
        blocked: Callable[[bool], None] = lambda blocked: None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        logging.getLogger("pika").setLevel(logging.CRITICAL)  # it tells of one failure in many lines; we in one
        self._parameters = pika.URLParameters(url)
        if self._parameters.ssl_options and trust:
            self._parameters.ssl_options = pika.SSLOptions(trust, self._parameters.host)
        self._parameters.heartbeat = HEARTBEAT_SECONDS
        self._parameters.connection_attempts = 1
        self._parameters.socket_timeout = CONNECT_SECONDS
        self._parameters.stack_timeout = 2 * CONNECT_SECONDS
        self._parameters.client_properties = {"connection_name": name}
        self.address = f"{self._parameters.host}:{self._parameters.port}"
        self._opened, self._closed, self._blocked = opened, closed, blocked
        self._lock = threading.Lock()
        self._loop: Any = None
        self._connection: Any = None
        self._ending = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def soon(self, work: Callable[[], None]) -> bool:
        """Have ``work`` done in the link's thread; False if there is no connection that it could use."""
        with self._lock:
            if self._loop is None:
                return False
            self._loop.add_callback_threadsafe(work)
            return True

    def stop(self) -> None:
        """Close the connection and open no other one."""
        self._ending.set()
        self.soon(self._leave)
        if self._thread.is_alive():
            self._thread.join(2 * CONNECT_SECONDS)

    def _run(self) -> None:
        while not self._ending.is_set():
            self._serve()
            self._ending.wait(random.uniform(LONGEST_PAUSE / 3, LONGEST_PAUSE))

    def _serve(self) -> None:
        """One connection from its beginning to its end."""
        connection = self._connection = pika.SelectConnection(
            self._parameters,
            on_open_callback=self._connected,
            on_open_error_callback=self._ended,
            on_close_callback=self._ended,
        )
        connection.add_on_connection_blocked_callback(lambda *_: self._blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._blocked(False))
        try:
            connection.ioloop.start()
        finally:
            with self._lock:
                self._loop = None
            connection.ioloop.close()
            self._closed()

    def _connected(self, connection: Any) -> None:
        if self._ending.is_set():
            self._leave()
            return
        connection.channel(on_open_callback=self._ready)

    def _ready(self, channel: Any) -> None:
        channel.add_on_close_callback(self._channel_ended)
        if self._failing:
            LOG.warning("the broker at %s is there again", self.address)
        self._failing = False
        with self._lock:
            self._loop = self._connection.ioloop
        self._opened(channel)

    def _channel_ended(self, channel: Any, reason: Exception) -> None:
        """The broker refuses what was asked of it, and says why; the connection goes with its only channel."""
        if isinstance(reason, pika.exceptions.ChannelClosedByBroker):
            self._tell(reason)
        self._leave()

    def _ended(self, connection: Any, reason: Exception) -> None:
        if not self._ending.is_set():
            self._tell(reason)
        connection.ioloop.stop()

    def _tell(self, reason: Exception) -> None:
        if not self._failing:
            LOG.warning("the broker at %s cannot be used: %s", self.address, reason or type(reason).__name__)
        self._failing = True

    def _leave(self) -> None:
        if self._connection.is_open:
            self._connection.close()
