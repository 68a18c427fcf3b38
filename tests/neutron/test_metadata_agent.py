"""neutron-metadata-agent: it listens where it should, and vouches for nobody but who asks."""

import socket
import time
from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec
import pytest

from cumulet.core.reconcile import Loop
from cumulet.core.secrets import sign
from cumulet.neutron.metadata.agent import MetadataAgent
from cumulet.neutron.metadata.proxy import LONGEST_ANSWER, LONGEST_BODY, Limits, Place
from cumulet.neutron.model import DhcpIntent, Owner, RouterIntent
from cumulet.sim.effects import Effects
from tests.neutron.agent_world import FakeController
from tests.neutron.metadata_world import OWNER, SECRET, World, metadata_world, read_all

T = TypeVar("T")
NET, NET2, ROUTER = Place("network", "n1"), Place("network", "n2"), Place("router", "r1")


# ── where it listens ─────────────────────────────────────────────────────────────────────────────────────────


class FakeListeners:
    """``spaces``: the namespaces that are there, each with a number that changes when it is made anew."""

    def __init__(self) -> None:
        self.spaces: dict[Place, int] = {}
        self.open: dict[Place, int] = {}

    def look(self) -> Mapping[Place, bool]:
        return {place: self.spaces.get(place) == number for place, number in self.open.items()}

    def listen(self, place: Place) -> bool:
        if place not in self.spaces:
            return False
        self.open[place] = self.spaces[place]
        return True

    def close(self, place: Place) -> None:
        del self.open[place]


class Server(FakeController):
    """Both documents that the agent reads."""

    def __init__(self) -> None:
        super().__init__(Effects(), "")
        self.owners: list[str] = []
        self.networks = {"n1": DhcpIntent("n1", 1, False), "n2": DhcpIntent("n2", 1, False)}
        self.routers = {"r1": RouterIntent("r1", 1, False)}

    def get(self, path: str, kind: type[T]) -> T:
        if "/owner?" in path:
            self.owners.append(path)
            return msgspec.convert(msgspec.to_builtins(OWNER), kind)
        self.path, self.intents = path, self.networks if path.endswith("dhcp") else self.routers
        return super().get(path, kind)


class Node:
    def __init__(self) -> None:
        self.server, self.listeners, self.now = Server(), FakeListeners(), 0.0
        self.agent = MetadataAgent(self.server, "h1", self.listeners)
        self.loop = Loop(self.agent.reconciler(), clock=lambda: self.now)

    def pass_(self) -> set[Place]:
        self.now += 60
        self.loop.run_once()
        return set(self.listeners.open)


def test_listens_where_the_intent_says_and_a_namespace_is() -> None:
    node = Node()
    node.listeners.spaces = {NET: 1, ROUTER: 2, Place("network", "stranger"): 3}
    assert node.pass_() == {NET, ROUTER}
    assert node.loop.failures["n2"].reason == "there is no namespace qdhcp-n2 yet"
    node.listeners.spaces[NET2] = 4
    assert node.pass_() == {NET, NET2, ROUTER}
    assert node.loop.failures == {}
    assert node.agent.details() == {"listeners": 3}


def test_a_tombstone_an_unbound_network_and_a_lost_namespace_close() -> None:
    node = Node()
    node.listeners.spaces = {NET: 1, NET2: 2, ROUTER: 3}
    node.pass_()
    node.server.routers["r1"] = RouterIntent("r1", 2, True)
    node.server.networks["n2"] = DhcpIntent("n2", 2, False, metadata_isolated=False)
    assert node.pass_() == {NET}
    node.listeners.spaces[NET] = 9
    node.pass_()
    assert node.listeners.open == {NET: 9}
    del node.listeners.spaces[NET]
    assert node.pass_() == set()


def test_closes_nothing_while_the_controller_is_away() -> None:
    node = Node()
    node.listeners.spaces = {NET: 1, NET2: 2, ROUTER: 3}
    node.pass_()
    node.server.away = True
    assert node.pass_() == {NET, NET2, ROUTER}


def test_asks_for_the_owner_by_place_and_address() -> None:
    node = Node()
    assert node.agent.find_owner(ROUTER, "fe80::1") == OWNER
    assert node.server.owners == ["/hosts/h1/owner?router=r1&ip=fe80%3A%3A1"]


# ── what it answers ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def world() -> Iterator[World]:
    with metadata_world() as made:
        made.listen()
        yield made


def test_vouches_for_who_asks(world: World) -> None:
    assert world.get("/latest/meta-data", User_Agent="curl", Cookie="x") == (200, b"ami")
    assert world.nova.asked[-1].startswith(b"GET /latest/meta-data HTTP/1.1\r\n")
    fields = dict(world.nova.fields())
    assert fields["x-instance-id"] == OWNER.device_id
    assert fields["x-tenant-id"] == OWNER.project_id
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields["x-instance-id-signature"] == sign(SECRET, OWNER.device_id)
    assert fields["user-agent"] == "curl"
    assert "cookie" not in fields


@pytest.mark.parametrize(
    "name",
    ["X-Instance-ID", "X-Instance-ID-Signature", "X-Tenant-ID", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP",
     "X-Neutron-Network-ID", "X-Neutron-Router-ID", "X-Cumulet-Host-Token", "X_Instance_ID", "x-instance-id",
     "Forwarded", "Authorization", "X-Auth-Token", "Connection", "Upgrade", "Expect"],
)  # fmt: skip
def test_what_a_guest_says_of_itself_is_dropped(world: World, name: str) -> None:
    raw = f"GET / HTTP/1.1\r\nHost: x\r\n{name}: forged\r\n{name}:forged\r\n\r\n"
    assert b"200 OK" in world.send(raw.encode())
    assert b"forged" not in world.nova.asked[-1]
    assert len(world.nova.fields()) == len(dict(world.nova.fields()))


@pytest.mark.parametrize("target", ["/latest/../../etc/passwd", "/%2e%2e/x", "//x/../y?a=b&c=../d", "/a#b", "/\\x"])
def test_paths_go_to_nova_as_they_came(world: World, target: str) -> None:
    world.send(f"GET {target} HTTP/1.0\r\n\r\n".encode())
    assert world.nova.asked[-1].startswith(f"GET {target} HTTP/1.1\r\n".encode())


def test_a_body_passes(world: World) -> None:
    body = b"p" * LONGEST_BODY
    head = f"POST /openstack/latest/password HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    assert b"200 OK" in world.send(head.encode() + body)
    assert world.nova.asked[-1].endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\nX-A: b\r\n X-Instance-ID: forged\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX-A : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX-A: b\nX-Instance-ID: forged\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nUser-Agent: a\rX-Instance-ID: forged\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nUser-Agent: a\0\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET / x HTTP/1.1\r\n\r\n", 400),
        (b"GET http://other/ HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT other:80 HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 5000 + b"\r\n", 431),
    ],
)
def test_what_is_not_http_is_refused(world: World, raw: bytes, status: int) -> None:
    answer = world.send(raw)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()) or (status == 431 and answer == b"")
    assert world.nova.asked == []


def test_a_stranger_is_not_vouched_for(world: World) -> None:
    world.owners.known.clear()
    assert world.get() == (404, b"no server has the address 127.0.0.1 here\n")
    world.owners.known[Place("network", "other"), "127.0.0.1"] = OWNER
    assert world.get()[0] == 404
    world.owners.known[world.place, "127.0.0.1"] = Owner("", "red")
    assert world.get()[0] == 404
    assert world.nova.asked == []


def test_what_does_not_answer_is_named(world: World) -> None:
    world.owners.away = True
    assert world.get() == (503, b"it cannot be told now who asks; try again\n")
    world.owners.away = False
    world.nova.answer = b""
    assert world.get() == (503, b"the metadata service does not answer; try again\n")
    world.nova.close()
    assert world.get() == (503, b"the metadata service does not answer; try again\n")


def test_the_next_controller_is_asked_when_one_does_not_answer() -> None:
    with metadata_world(second=True) as world:
        world.listen()
        assert world.get("/latest/meta-data") == (200, b"ami")


def test_a_bounded_answer(world: World) -> None:
    world.nova.answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2 * LONGEST_ANSWER)
    assert len(world.send(b"GET / HTTP/1.1\r\n\r\n")) == LONGEST_ANSWER


def test_open_connections_are_bounded(world: World) -> None:
    idle = [world.connect() for _ in range(Limits().per_guest)]
    until_refused(world)
    idle.pop().close()
    until_answered(world)
    for one in idle:
        one.close()


def until_refused(world: World) -> None:
    deadline = time.monotonic() + 10
    while b"503" not in world.send(b"GET / HTTP/1.1\r\n\r\n"):
        assert time.monotonic() < deadline


def until_answered(world: World) -> None:
    deadline = time.monotonic() + 10
    while b"200 OK" not in world.send(b"GET / HTTP/1.1\r\n\r\n"):
        assert time.monotonic() < deadline


def test_a_slow_guest_is_cut_off() -> None:
    with metadata_world(Limits(request_seconds=0.3)) as world:
        world.listen()
        with world.connect() as slow, world.connect() as slower:
            slow.sendall(b"GET / HTTP/1.1\r\nX-A")
            slower.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc")
            assert read_all(slow).startswith(b"HTTP/1.1 408 ")
            assert read_all(slower).startswith(b"HTTP/1.1 408 ")
        assert world.get()[0] == 200


def test_a_guest_that_does_not_read_is_cut_off() -> None:
    with metadata_world(Limits(answer_seconds=0.3, flush_seconds=0.3)) as world:
        world.listen(send_buffer=8192)
        world.nova.answer = b"x" * LONGEST_ANSWER
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            deaf.connect(("127.0.0.1", world.port))
            deaf.sendall(b"GET / HTTP/1.1\r\n\r\n")
            deadline = time.monotonic() + 10
            while world.proxy.open_connections() or not world.nova.asked:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert len(read_all(deaf)) < LONGEST_ANSWER


def test_closing_ends_no_answer_that_is_under_way(world: World) -> None:
    with world.connect() as guest:
        guest.sendall(b"GET / HTTP/1.1\r\n")
        deadline = time.monotonic() + 10
        while not world.proxy.open_connections():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        world.proxy.close(world.place)
        guest.sendall(b"\r\n")
        assert b"200 OK" in read_all(guest)
    with pytest.raises(OSError):
        world.connect().close()
