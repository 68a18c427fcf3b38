"""A RabbitMQ of a test's own, on loopback: the part that a controller supervises, started and killed at will."""

import os
import signal
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.core.amqp import Link
from cumulet.core.secrets import generate
from cumulet.host import process, rabbitmq

START_SECONDS = 120.0


class Broker:
    """With a certificate it speaks TLS alone, and ``trust`` is how to call it."""

    def __init__(self, state: Path, certificate: str = "", trust: ssl.SSLContext | None = None) -> None:
        self._certificate, self._trust = certificate, trust
        if os.geteuid() != 0:
            pytest.skip("needs root")
        if not os.path.exists(rabbitmq.SERVER):
            pytest.skip("needs rabbitmq-server")
        self.state, self.port, self._distribution = state, _free_port(), _free_port()
        self._users = rabbitmq.users(generate())
        self._pid_file = str(state / "rabbitmq.pid")

    def url(self, number: int = 0) -> str:
        """As the first user, the controllers', or the second, the hosts'."""
        user = self._users[number]
        scheme = "amqps" if self._certificate else "amqp"
        return f"{scheme}://{user.name}:{user.password}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it takes connections."""
        rabbitmq.prepare(self.state, ("127.0.0.1", self.port), self._users, self._certificate)
        argv, environment = rabbitmq.command(self.state, self.state, self._distribution)
        process.start(argv, self._pid_file, log_path=str(self.state / "log"), env=environment)
        self.wait()

    def wait(self) -> None:
        there = threading.Event()
        link = Link(self.url(), "test", lambda _: there.set(), trust=self._trust)
        link.start()
        try:
            assert there.wait(START_SECONDS), (self.state / "log").read_text()[-2000:]
        finally:
            link.stop()

    def kill(self) -> None:
        process.send(self._pid_file, str(self.state), signal.SIGKILL)
        self.end()

    def end(self) -> None:
        process.terminate(self._pid_file, str(self.state), 30.0)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        found = Broker(Path(place))
        try:
            found.start()
            yield found
        finally:
            found.end()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
