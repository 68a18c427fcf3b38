"""The listening sockets of services: opened by the node's parent, once, so that they outlive a service's end."""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cumulet.core.config import Config
from cumulet.services import Named

BIND_SECONDS = 20.0


def status_socket(config: Config, name: str) -> Path:
    return config.run / "status" / f"{name}.sock"


def open_all(service: Named, config: Config, former: Sequence[socket.socket] = ()) -> list[socket.socket]:
    """What a service listens on: its status socket, then its API's if it has one.

    ``former``: what it listened on before; of these the ones that are where they should be are kept.
    """
    api = api_address(service, config) if service.port else None
    path = str(status_socket(config, service.name))
    kept: dict[object, socket.socket] = {}
    for one in former:
        place = _place(one)
        if place in (api, path):
            kept[place] = one
        else:
            one.close()
    found = [kept.get(path) or listen_status(config, service.name)]
    return [*found, kept.get(api) or listen(*api)] if api else found


def _place(listener: socket.socket) -> str | tuple[str, int]:
    """Where it listens: a path, or an address and a port."""
    name = listener.getsockname()
    return name if isinstance(name, str) else (name[0], name[1])


def close_others(opened: Mapping[str, Sequence[socket.socket]], name: str) -> None:
    """In a forked child: let go of all sockets but those of the service ``name``.

    Who could accept on another service's socket could answer in its name, whatever user it runs as.
    """
    for service, listeners in opened.items():
        for listener in listeners if service != name else ():
            listener.close()


def listen_status(config: Config, name: str) -> socket.socket:
    path = status_socket(config, name)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    os.chmod(path, 0o660)
    os.chown(path, -1, path.parent.stat().st_gid)
    listener.listen(64)
    listener.setblocking(False)
    return listener


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; waits a while for a former parent's children to let go of the port."""
    deadline = time.monotonic() + BIND_SECONDS
    while True:
        listener = bindable(host, port)
        if isinstance(listener, socket.socket):
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"port {port} on {host} cannot be had: {listener}")
        time.sleep(0.1)
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def api_address(service: Named, config: Config) -> tuple[str, int]:
    """Where a service listens; port 0: nowhere."""
    return (config.api.bind if service.public else config.api.internal_bind), service.port


def taken_ports(config: Config) -> list[str]:
    """One line for each port that a service needs and somebody else has; asked while the cloud is down."""
    found = []
    for service in config.services:
        if not service.port:
            continue
        host, port = api_address(service, config)
        listener = bindable(host, port)
        if isinstance(listener, str):
            who = holder(port)
            found.append(f"{service.name} needs port {port} on {host}: {listener}" + (f" by {who}" if who else ""))
        else:
            listener.close()
    return found


def bindable(host: str, port: int) -> socket.socket | str:
    """A socket bound there, or why that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        return error.strerror or str(error)
    return listener


def holder(port: int) -> str:
    """Who listens on this TCP port, e.g. ``nginx (pid 812)``; empty if that cannot be seen."""
    inodes = {
        fields[9]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, _lines(Path("/proc/net") / table))
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
    }
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in Path("/proc").iterdir() if wanted else ():
        if entry.name.isdigit() and wanted & _open_files(entry):
            return f"{(entry / 'comm').read_text().strip()} (pid {entry.name})"
    return ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()[1:]
    except FileNotFoundError:
        return []


def _open_files(entry: Path) -> set[str]:
    found = set()
    try:
        for link in (entry / "fd").iterdir():
            found.add(os.readlink(link))
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        pass
    return found
