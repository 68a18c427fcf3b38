"""What runs, as the node's parent and the services' own status sockets tell it."""

import contextlib
import http.client
import os
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from cumulet.cli import record, sockets
from cumulet.cli.record import Member
from cumulet.core.config import Config
from cumulet.core.reconcile import LoopStatus
from cumulet.host import process
from cumulet.services import Named

SECONDS = 2.0
T = TypeVar("T")


class UnixConnection(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: Path, seconds: float = SECONDS) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Health(msgspec.Struct):
    """One line of the map: a service or a part of this node."""

    name: str
    role: str
    pid: int = 0
    since: str = ""
    starts: int = 0
    healthy: bool = False
    answers: bool = False  # on its status socket; a part that runs
    problem: str = ""
    address: str = ""


def ask(config: Config, name: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    """What a service's status socket answers; status 0 if it does not, with the reason."""
    with contextlib.closing(UnixConnection(config.run / "status" / f"{name}.sock")) as connection:
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        except TimeoutError:
            return 0, b"does not answer"
        except (OSError, http.client.HTTPException) as error:
            return 0, f"does not answer: {getattr(error, 'strerror', None) or error}".encode()


def running(config: Config) -> bool:
    """Whether this node's parent lives, and has begun to start services."""
    return bool(record.members(config))


def require_root(command: str, why: str) -> None:
    """End the program with one line unless this is root."""
    if os.geteuid() != 0:
        sys.exit(f"cumulet {command} needs root: {why}")


def require_running(config: Config, command: str, why_root: str) -> None:
    """As ``require_root``, and unless the cloud is up here."""
    require_root(command, why_root)
    if not running(config):
        sys.exit(down(config))


def down(config: Config) -> str:
    """What to say when no services run here."""
    if record.find_keeper(config) or record.find_parent(config):
        return f"the cloud is starting; if it does not come, {config.logs}/cumulet-node.log says why"
    if living_parts(config):
        return "the services are stopped on this node, its servers go on: 'cumulet up' starts them"
    return "the cloud is down on this node: 'cumulet up' starts it"


def living_parts(config: Config) -> list[str]:
    """Open vSwitch and libvirtd, as far as they live; they outlive the parent's orderly end."""
    from cumulet.cli import parts

    return [name for name in parts.NAMES if process.find(str(parts.pid_file(config, name)), parts.marker(config))]


def healths(config: Config) -> list[Health]:
    """Every service that this node is to run, and its parts, with what is wrong with them."""
    found = record.members(config)
    services = _side_by_side(lambda service: _health(config, service, found.get(service.name)), config.services)
    parts = [_fill(Health(one.name, "part"), one) for one in found.values() if one.part]
    return [*services, *parts]


def loops(config: Config, known: Sequence[Health]) -> dict[str, list[LoopStatus]]:
    """The reconcile loops of each service that answers, by service; who is known not to answer is not asked."""
    silent = {line.name for line in known if not line.answers}
    asked = [service for service in config.services if service.name not in silent]
    answers = _side_by_side(lambda service: ask(config, service.name, "/loops"), asked)
    return {
        service.name: msgspec.json.decode(body, type=list[LoopStatus])
        for service, (status, body) in zip(asked, answers, strict=True)
        if status == 200
    }


def _health(config: Config, service: Named, member: Member | None) -> Health:
    found = Health(service.name, service.role, problem="not running")
    if service.port:
        found.address = "{}:{}".format(*sockets.api_address(service, config))
    if member is None:
        return found
    _fill(found, member)
    if member.pid:
        status, body = ask(config, service.name, "/healthcheck")
        found.answers, found.healthy = status != 0, status == 200
        found.problem = "" if found.healthy else body.decode("utf-8", "replace")
    return found


def _fill(found: Health, member: Member) -> Health:
    found.pid, found.since, found.starts = member.pid, member.started_at, member.starts
    found.answers = found.healthy = member.pid > 0
    found.problem = member.problem
    return found


def _side_by_side(look: Callable[[Named], T], services: Iterable[Named]) -> list[T]:
    """One that hangs must not hold up the others."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(look, services))
