"""A router whose addresses another node announces: still ours, somebody else's, or nobody says whose."""

import socket
from collections.abc import Iterator
from typing import TypeVar

import pytest

from cumulet.core.errors import Retry
from cumulet.core.reconcile import Loop
from cumulet.neutron.l3.rivals import Rivals
from cumulet.neutron.model import RouterIntent

T = TypeVar("T")


class Host:
    """A controller and the router's public devices, as lists of what was asked and done."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.addresses = [address]
        self.intents: dict[str, RouterIntent] = {}
        self.answers = True
        self.done: list[str] = []

    def get(self, path: str, kind: type[T]) -> T:
        assert path == "/hosts/h1/routers"
        if not self.answers:
            raise Retry("neutron-server answers 503")
        return self.intents  # type: ignore[return-value]

    def listen(self) -> None:
        self.done.append("listen")

    def announce(self, router_id: str) -> None:
        self.done.append(f"announce {router_id}")

    def silence(self, router_id: str) -> None:
        self.done.append(f"silence {router_id}")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


@pytest.fixture
def host(listener: socket.socket) -> Host:
    return Host(listener.getsockname())


def heard(host: Host) -> list[str]:
    """What is done when a rival of the router ``r1`` is heard."""
    rivals = Rivals(host, "h1", host)
    loop = Loop(rivals.reconciler(), clock=lambda: 0.0)
    loop.run_once()
    assert host.done == ["listen"]
    rivals.hear("r1")
    loop.wake("r1")
    loop.run_once()
    loop.wake("r1")
    loop.run_once()  # heard once, answered once
    assert loop.failures == {}
    return [one for one in host.done if one != "listen"]


def test_whose_router_it_is_has_the_last_word(host: Host) -> None:
    host.intents = {"r1": RouterIntent("r1", 1, False)}
    assert heard(host) == ["announce r1"]


@pytest.mark.parametrize("intents", [{}, {"r1": RouterIntent("r1", 2, True)}], ids=["unknown", "tombstone"])
def test_a_router_that_went_away_is_left_to_its_tombstone(host: Host, intents: dict[str, RouterIntent]) -> None:
    host.intents = intents
    assert heard(host) == []


def test_who_cannot_ask_gives_way(host: Host) -> None:
    host.answers = False
    assert heard(host) == ["silence r1"]


def test_who_cannot_reach_anybody_gives_way(host: Host, listener: socket.socket) -> None:
    listener.close()
    assert heard(host) == ["silence r1"]
