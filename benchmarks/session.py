"""The administrator of the cloud under measurement, and what a request costs it."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from benchmarks.client import Answer, Connection, one_after_another, request, side_by_side
from benchmarks.figures import Figure, figure
from cumulet.core import secrets
from cumulet.core.config import Config
from cumulet.host import usage
from cumulet.services import SERVICES

BATCHES = 5
BATCH_SECONDS = 0.6
LATENCIES = 300
VERSION = {"OpenStack-API-Version": "compute 2.67"}
Json = Any


class Session:
    """Kept connections and a token.  Services are named by their type in the catalogue."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._places = {kind: (one.port, path) for one in SERVICES for kind, _, path in one.catalog}
        self._connections: dict[str, Connection] = {}
        self.token = ""
        self.project_id = ""

    def login_request(self) -> bytes:
        password = secrets.load(self.config.etc).admin_password
        user = {"name": "admin", "domain": {"id": "default"}, "password": password}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
        return request("POST", "/v3/auth/tokens", {}, {"auth": auth})

    def login(self) -> None:
        answer = self.send("identity", self.login_request())
        self.token = answer.header("X-Subject-Token")
        self.project_id = answer.json()["token"]["project"]["id"]

    def request(self, service: str, method: str, path: str, body: Json = None, **headers: str) -> bytes:
        more = VERSION if service == "compute" else {}
        return request(
            method, self._places[service][1] + path, {"X-Auth-Token": self.token, **more, **headers}, body
        )

    def connection(self, service: str) -> Connection:
        if service not in self._connections:
            self._connections[service] = Connection(self.port(service))
        return self._connections[service]

    def send(self, service: str, sent: bytes) -> Answer:
        return self.connection(service).ask(sent)

    def ask(self, service: str, method: str, path: str, body: Json = None) -> Json:
        answer = self.send(service, self.request(service, method, path, body))
        return answer.json() if answer.body else None

    def port(self, service: str) -> int:
        return self._places[service][0]


class Cost:
    """CPU that the cloud spends on requests, in milliseconds each, and how long they take."""

    def __init__(self, session: Session, pids: Callable[[], Collection[int]]) -> None:
        self._session, self._pids = session, pids

    def repeated(self, name: str, service: str, sent: bytes) -> Iterator[Figure]:
        """A request that may be repeated: CPU of batches by one client, then latencies of one and of sixteen."""
        connection = self._session.connection(service)
        took = one_after_another(connection, [sent] * 20)
        size = max(5, int(BATCH_SECONDS / (sum(took[10:]) / 10)))
        costs = [self.batch(service, [sent] * size) for _ in range(BATCHES)]
        yield figure(name, costs)
        yield from self.latencies(name, service, lambda: [sent] * min(size, LATENCIES))

    def batch(self, service: str, requests: Sequence[bytes], settle: float = 0.0) -> float:
        """``settle``: seconds for what agents do about it afterwards."""
        pids = self._pids()
        before = usage.cpu(pids)
        one_after_another(self._session.connection(service), requests)
        time.sleep(settle)
        return (usage.cpu(pids) - before) * 1000 / len(requests)

    def latencies(self, name: str, service: str, requests: Callable[[], Sequence[bytes]]) -> Iterator[Figure]:
        base = name.removesuffix("_ms")
        alone = one_after_another(self._session.connection(service), requests())
        yield _latency(f"{base}_latency_1_ms", alone)
        yield _latency(f"{base}_latency_16_ms", side_by_side(self._session.port(service), requests()))


def _latency(name: str, seconds: Sequence[float]) -> Figure:
    return figure(name, [one * 1000 for one in seconds])


def wait_until(done: Callable[[], bool], seconds: float, pause: float, what: str) -> float:
    """Poll for a level; how long it took."""
    started = time.perf_counter()
    while not done():
        assert time.perf_counter() - started < seconds, f"no {what} after {seconds} s"
        time.sleep(pause)
    return time.perf_counter() - started
