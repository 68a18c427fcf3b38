"""Too much of everything, by people without a token and with one (families TOK-9 and API-6)."""

import http.client
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from cumulet.core.bounded import LONGEST_HEAD
from tests import databases
from tests.attacks.doors import Doors
from tests.attacks.test_tok_context import serving

LISTS = (
    ("nova-api", "/v2.1/servers"), ("nova-api", "/v2.1/flavors"), ("neutron-server", "/v2.0/ports"),
    ("neutron-server", "/v2.0/networks"), ("glance-api", "/v2/images"), ("keystone", "/v3/auth/projects"),
)  # fmt: skip


def test_a_query_of_many_parameters_is_refused(shared: Doors) -> None:
    """Each name would be looked for in all of them: the square of their number."""
    for name, url in LISTS:
        for text in ("&".join(f"a{n}=1" for n in range(20_000)), "id=x&" * 20_000, "sort_key=id&" * 20_000):
            assert shared.call("alice", name, "GET", f"{url}?{text}")[0] == 400, url
        fewer = "&".join(f"a{n}=1" for n in range(900))
        assert shared.call("alice", name, "GET", f"{url}?{fewer}")[0] in (200, 400), url


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 50_000, b'"' + b"\\" * 500_000, b"9" * 500_000,
                                 b"-" * 1000, b'{"server":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
                                 b"[1," * 100_000])  # fmt: skip
def test_deep_and_long_bodies_are_a_400(shared: Doors, raw: bytes) -> None:
    for who, name, url in (
        ("alice", "nova-api", "/v2.1/servers"), ("alice", "neutron-server", "/v2.0/networks"),
        ("alice", "glance-api", "/v2/images"), ("nobody", "keystone", "/v3/auth/tokens"),
        ("host:h1", "nova-conductor", "/hosts/h1/servers"), ("host:h1", "neutron-server", "/hosts/h1/ports"),
    ):  # fmt: skip
        started = time.process_time()
        assert shared.call(who, name, "POST", url, raw)[0] == 400, (name, raw[:20])
        assert time.process_time() - started < 20  # for ever, if it is not bounded


def send(port: int, pieces: Any) -> tuple[int, bytes]:
    """Bytes sent until the other side had enough, and what it said."""
    sent, said = 0, b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        try:
            for piece in pieces:
                sock.sendall(piece)
                sent += len(piece)
            said = sock.recv(4096)
        except ConnectionError:
            pass
    return sent, said


def test_heads_without_end_are_cut_off(memory: Path) -> None:
    """One long line, one long header, many headers: closed long before they fill the memory."""
    doors = Doors(memory, url=databases.url(memory / "cloud.sqlite"))
    piece, most = b"a" * 65536, 200  # 13 MB
    floods: tuple[tuple[bytes, bytes], ...] = (
        (b"GET /", piece), (b"GET /?", b"a=1&" * 16384), (b"GET / HTTP/1.1\r\nA: ", piece), (b"", piece),
        (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 10000), (b"GET / HTTP/1.1\r\n" + piece, piece),
        (b"GET /healthcheck HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nA: ", piece),
    )  # fmt: skip
    with serving({"nova-api": doors.apps["nova-api"]}) as ports:
        port = ports["nova-api"]
        for start, more in floods:
            sent, said = send(port, (start, *(more for _ in range(most))))
            assert sent < 8 << 20, (start[:40], sent)
            assert b" 500 " not in said
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for _ in range(5):  # kept connections count anew for each request
            connection.request("GET", "/healthcheck", headers={"A": "b" * (LONGEST_HEAD // 3)})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"OK")
        connection.request("POST", "/v2.1/servers", b"x" * 500_000)
        answer = connection.getresponse()
        assert (answer.status, b"authentication" in answer.read()) == (401, True)
        connection.close()
