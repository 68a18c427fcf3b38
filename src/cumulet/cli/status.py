"""What runs, as the node's parent and the services' own status sockets tell it."""

import contextlib
import http.client
import os
import socket
from pathlib import Path
from typing import Any

import msgspec

from cumulet.core.config import Config
from cumulet.services import SERVICES

SECONDS = 2.0


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
    problem: str = ""
    address: str = ""


def ask(config: Config, name: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    """What a service's status socket answers; status 0 if it does not."""
    with contextlib.closing(UnixConnection(config.run / "status" / f"{name}.sock")) as connection:
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error).encode()


def node(config: Config) -> dict[str, Any]:
    """The parent's own record; empty if no parent runs."""
    try:
        found: dict[str, Any] = msgspec.json.decode((config.run / "node.json").read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return found if _alive(found["pid"]) else {}


def running(config: Config) -> bool:
    return bool(node(config))


def healths(config: Config) -> list[Health]:
    """Every service of the map on this node, and its parts, with what is wrong with them."""
    members = {member["name"]: member for member in node(config).get("members", [])}
    found = []
    for service in SERVICES:
        address = ""
        if service.port:
            address = f"{config.api.bind if service.public else config.api.internal_bind}:{service.port}"
        found.append(_health(config, service.name, service.role, members, address))
    for name, member in members.items():
        if member["part"]:
            alive = _alive(member["pid"])
            found.append(_line(name, "part", member, alive, "" if alive else "ended"))
    return found


def loops(config: Config) -> dict[str, list[dict[str, Any]]]:
    """The reconcile loops of each service that answers, by service."""
    found = {}
    for service in SERVICES:
        status, body = ask(config, service.name, "/loops")
        if status == 200:
            found[service.name] = msgspec.json.decode(body)
    return found


def _health(config: Config, name: str, role: str, members: dict[str, Any], address: str) -> Health:
    member = members.get(name)
    if member is None:
        return Health(name, role, address=address, problem="not running")
    status, body = ask(config, name, "/healthcheck")
    problem = "" if status == 200 else body.decode(errors="replace") or "does not answer"
    return _line(name, role, member, status == 200, problem, address)


def _line(name: str, role: str, member: dict[str, Any], healthy: bool, problem: str, address: str = "") -> Health:
    return Health(name, role, member["pid"], member["started_at"], member["starts"], healthy, problem, address)


def _alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}/stat") and pid > 0
