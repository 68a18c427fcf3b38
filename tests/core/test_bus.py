"""What every kind of bus does: the same stories within a process, between those of a node, and between nodes.

The last goes through a RabbitMQ, which is killed and started again.
"""

import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pika
import pika.exceptions
import pytest

from cumulet.core import certificates
from cumulet.core.amqp_bus import MOST_WAITING, AmqpBus, NodeBus
from cumulet.core.bus import EVERYTHING, Bus, LocalBus, SocketBus
from cumulet.core.config import Broker as BrokerOptions
from cumulet.core.config import Config, Tls
from tests.broker import Broker, broker

__all__ = ["broker"]

SECONDS = 30.0
NOWHERE = "amqp://nobody:x@127.0.0.1:1"


class Ear:
    """A listener that remembers, and that one can wait for."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._changed = threading.Condition()

    def __call__(self, key: str) -> None:
        with self._changed:
            self.heard.append(key)
            self._changed.notify_all()

    def wait(self, *keys: str) -> None:
        """Until each of the keys was heard."""
        with self._changed:
            assert self._changed.wait_for(lambda: set(keys) <= set(self.heard), SECONDS), self.heard

    def forget(self) -> None:
        with self._changed:
            self.heard.clear()


class Buses(Protocol):
    """Makes buses that reach each other; ``ready`` returns when a listener that was made is heard of."""

    def make(self, number: int) -> Bus: ...
    def ready(self, ear: Ear) -> None: ...


class Local:
    def __init__(self) -> None:
        self._bus = LocalBus()

    def make(self, number: int) -> Bus:
        return self._bus

    def ready(self, ear: Ear) -> None:
        """At once."""


class Sockets(Local):
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(self, number: int) -> Bus:
        return SocketBus(self._directory)


class Amqp:
    def __init__(self, url: str) -> None:
        self._url, self.made = url, list[AmqpBus]()

    def make(self, number: int) -> AmqpBus:
        self.made.append(AmqpBus(self._url, f"node-{number}", "test"))
        return self.made[-1]

    def ready(self, ear: Ear) -> None:
        ear.wait(EVERYTHING)
        ear.forget()


@pytest.fixture(params=["local", "sockets", pytest.param("amqp", marks=pytest.mark.host)])
def buses(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Buses]:
    if request.param == "local":
        yield Local()
    elif request.param == "sockets":
        yield Sockets(tmp_path)
    else:
        found = Amqp(request.getfixturevalue("broker").url())
        yield found
        for bus in found.made:
            bus.stop()


def test_a_hint_reaches_all_who_listen_to_its_topic_and_nobody_else(buses: Buses) -> None:
    ears = [Ear(), Ear(), Ear()]
    for number, (ear, topic) in enumerate(zip(ears, ("nova.servers", "nova.servers", "nova.hosts.a"), strict=True)):
        buses.make(number).listen(topic, ear)
        buses.ready(ear)
    sender = buses.make(3)
    sender.hint("nova.servers", "server-1")
    sender.hint("nova.hosts.a", "server-2")
    for ear, key in zip(ears, ("server-1", "server-1", "server-2"), strict=True):
        ear.wait(key)
        assert ear.heard == [key]


def test_one_process_listens_to_many_topics_and_one_topic_has_many_listeners(buses: Buses) -> None:
    bus, one, other = buses.make(0), Ear(), Ear()
    for topic, ear in (("a.x", one), ("a.y", one), ("a.x", other)):
        bus.listen(topic, ear)
        buses.ready(ear)
    sender = buses.make(1)
    sender.hint("a.x", "1")
    sender.hint("a.y", "2")
    one.wait("1", "2")
    other.wait("1")


def test_hints_are_taken_without_anybody_who_listens_and_topics_are_checked(buses: Buses) -> None:
    bus = buses.make(0)
    bus.hint("nobody.listens", "x")
    if not isinstance(bus, LocalBus):
        calls: tuple[Callable[[], None], ...] = (
            lambda: bus.hint("../../etc", "x"),
            lambda: bus.listen("a.*", Ear()),
        )
        for call in calls:
            with pytest.raises(ValueError):
                call()


def test_who_hints_does_not_wait_for_a_broker_that_is_not_there() -> None:
    bus = AmqpBus(NOWHERE, "node-1")
    for number in range(MOST_WAITING * 3):
        bus.hint("nova.servers", str(number))
    bus.listen("nova.servers", Ear())
    bus.stop()


def test_processes_of_a_node_hear_each_other_without_a_broker(tmp_path: Path) -> None:
    far = [AmqpBus(NOWHERE, "node-1") for _ in range(2)]
    receiver, sender = (NodeBus(SocketBus(tmp_path), bus) for bus in far)
    ear = Ear()
    receiver.listen("nova.servers", ear)
    sender.hint("nova.servers", "server-1")
    ear.wait("server-1")
    for bus in far:
        bus.stop()


@pytest.mark.host
def test_a_node_hears_itself_once_and_others_through_the_broker(broker: Broker, tmp_path: Path) -> None:
    far = [AmqpBus(broker.url(1), name, "test") for name in ("node-1", "node-1", "node-2")]
    receiver, neighbour = (NodeBus(SocketBus(tmp_path), bus) for bus in far[:2])
    ear = Ear()
    receiver.listen("nova.servers", ear)
    ear.wait(EVERYTHING)
    ear.forget()
    neighbour.hint("nova.servers", "near")
    far[1].hint("nova.servers", "sent through the broker by the node itself")
    far[2].hint("nova.servers", "far")
    ear.wait("near", "far")
    far[1].hint("nova.servers", "and again")
    far[2].hint("nova.servers", "last")
    ear.wait("last")
    assert sorted(ear.heard) == ["far", "last", "near"]
    for bus in far:
        bus.stop()


@pytest.mark.host
def test_a_broker_that_comes_back_wakes_all_who_listen_and_brings_what_waited(broker: Broker) -> None:
    receiver, sender, ear = AmqpBus(broker.url(), "node-1"), AmqpBus(broker.url(), "node-2"), Ear()
    receiver.listen("nova.servers", ear)
    ear.wait(EVERYTHING)
    sender.hint("nova.servers", "before")
    ear.wait("before")
    ear.forget()
    broker.kill()
    sender.hint("nova.servers", "during")
    broker.start()
    ear.wait(EVERYTHING)
    sender.hint("nova.servers", "after")
    ear.wait("after")
    for bus in (receiver, sender):
        bus.stop()


@pytest.mark.host
def test_hosts_may_use_hints_and_nothing_else(broker: Broker) -> None:
    channel: Callable[[], Any] = pika.BlockingConnection(pika.URLParameters(broker.url(1))).channel
    refusals: tuple[Callable[[Any], object], ...] = (
        lambda open_: open_.exchange_declare("nova", "topic", durable=True),
        lambda open_: open_.queue_declare("notifications.info", durable=True),
        lambda open_: open_.queue_bind(open_.queue_declare("", exclusive=True).method.queue, "amq.topic", "#"),
    )
    for refused in refusals:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            refused(channel())
    for user in ("guest:guest", "cumulet:"):
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            pika.BlockingConnection(pika.URLParameters(f"amqp://{user}@127.0.0.1:{broker.port}"))


@pytest.mark.host
def test_a_broker_with_a_certificate_of_the_clouds_is_believed_and_another_is_not(tmp_path: Path) -> None:
    ours = BrokerOptions("amqps://127.0.0.1")
    config = Config(tls=Tls(on=True), broker=ours, etc_dir=str(tmp_path))
    authority = certificates.make_authority()
    certificates.prepare(config, authority, 0)
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        found = Broker(Path(place), certificates.server_path(config).read_text(), certificates.broker_trust(config))
        ear = Ear()
        receiver, sender = (
            AmqpBus(found.url(), name, trust=certificates.broker_trust(config)) for name in ("node-1", "node-2")
        )
        try:
            found.start()
            receiver.listen("nova.servers", ear)
            ear.wait(EVERYTHING)
            sender.hint("nova.servers", "server-1")
            ear.wait("server-1")
            options = pika.URLParameters(found.url())  # the machine's own authorities alone
            with pytest.raises(ssl.SSLCertVerificationError):
                pika.BlockingConnection(options)
        finally:
            for bus in (receiver, sender):
                bus.stop()
            found.end()
