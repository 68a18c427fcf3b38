"""The cloud's own RabbitMQ: one per controller that is told to have it, a supervised child in the foreground.

It runs as the package's user, keeps everything below our state directory, and shares neither its name, nor its
ports, nor its cookie with a RabbitMQ that the machine may have.  Erlang's port mapper (epmd), which would listen on
every address and outlive everything, is not used; should RabbitMQ start it after all, it listens on loopback.  The
node's only other port is a fixed one there, for ``rabbitmqctl``.  Users, their rights and bounds are definitions
that it reads at each start; the user guest, whom every RabbitMQ knows, is never made.

Its node is called ``cumulet@localhost`` wherever it runs, since a node finds its data by its name: the machine may
be renamed.
"""

import base64
import hashlib
import ipaddress
import os
import pwd
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cumulet.core.amqp import CONTROLLERS, HOSTS
from cumulet.core.amqp_bus import EXCHANGE
from cumulet.core.secrets import Secrets

USER = "rabbitmq"
NODE = "cumulet@localhost"
SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""Not the one in the PATH, which changes the user by itself and reads the machine's settings."""
WEEK = 7 * 86400 * 1000
MOST_NOTIFICATIONS = 200_000


class RabbitmqError(Exception):
    """RabbitMQ cannot be prepared; the message says what is missing."""


@dataclass(frozen=True)
class User:
    name: str
    password: str
    rights: str = ".*"  # a regular expression: which exchanges and queues it may use

    def __repr__(self) -> str:
        return f"User({self.name!r}, ***)"


def users(known: Secrets) -> tuple[User, User]:
    """Controller services, and what runs on hosts: those hint and hear hints, and read nobody's notifications."""
    rights = f"^(amq\\.gen-.*|{re.escape(EXCHANGE)})$"
    return User(CONTROLLERS, known.broker_password), User(HOSTS, known.hints_password, rights)


def prepare(state_dir: Path, address: tuple[str, int], users: tuple[User, ...], certificate: str = "") -> None:
    """Write directories and configuration; may be repeated, also while it runs.

    ``certificate``: key and certificate as PEM; with it RabbitMQ speaks TLS and nothing else.
    """
    try:
        entry = pwd.getpwnam(USER)
    except KeyError as error:
        raise RabbitmqError("no RabbitMQ on this machine; install rabbitmq-server") from error
    if not os.path.exists(SERVER):
        raise RabbitmqError(f"no {SERVER} on this machine; install rabbitmq-server")
    base = state_dir / "rabbitmq"
    for place in (base, base / "mnesia", base / "log"):
        place.mkdir(exist_ok=True)
        place.chmod(0o750)
        os.chown(place, entry.pw_uid, entry.pw_gid)
    _write(base / "rabbitmq.conf", _options(base, address, bool(certificate)), entry.pw_gid)
    _write(base / "server.pem", certificate, entry.pw_gid)
    _write(base / "enabled_plugins", "[].\n", entry.pw_gid)
    _write(base / "definitions.json", msgspec.json.encode(_definitions(users)).decode(), entry.pw_gid)


def command(state_dir: Path, run_dir: Path, distribution_port: int = 25672) -> tuple[list[str], dict[str, str]]:
    """What to execute as root, and its environment.  It becomes RabbitMQ and still names ``run_dir`` then."""
    base = state_dir / "rabbitmq"
    setpriv = shutil.which("setpriv") or "/usr/bin/setpriv"
    argv = [setpriv, "--reuid", USER, "--regid", USER, "--init-groups", "--no-new-privs", "--"]
    argv += [SERVER, "-cumulet", str(run_dir)]
    options = [
        *("-sname", NODE, "-start_epmd", "false", "-erl_epmd_port", str(distribution_port)),
        *("-kernel", "inet_dist_use_interface", "{127,0,0,1}"),
    ]
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "ERL_EPMD_ADDRESS": "127.0.0.1",  # where it listens if RabbitMQ starts it after all, as it does in time
        "HOME": str(base),  # where Erlang keeps its cookie
        "ERL_FLAGS": "-start_epmd false",  # also for what RabbitMQ starts each minute, only to have epmd started
        "ERL_CRASH_DUMP_SECONDS": "0",  # of those: they end for want of it
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(base / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "enabled_plugins"),
        "RABBITMQ_FEATURE_FLAGS_FILE": str(base / "mnesia" / "feature_flags"),
        "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
        "RABBITMQ_LOG_BASE": str(base / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_NODENAME": NODE,
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(options),
        "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes RabbitMQ instead of waiting for it
    }
    return argv, environment


def resolved(host: str, port: int) -> tuple[str, int]:
    """An address to listen on; RabbitMQ wants numbers."""
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]), port
    except OSError as error:
        raise RabbitmqError(f"the broker's address {host} is not known: {error.strerror}") from error


def _options(base: Path, address: tuple[str, int], tls: bool) -> str:
    host, port = resolved(*address)
    listeners = [f"listeners.tcp.1 = {host}:{port}"]
    if tls:
        listeners = [
            "listeners.tcp = none",
            f"listeners.ssl.1 = {host}:{port}",
            f"ssl_options.certfile = {base / 'server.pem'}",
            f"ssl_options.keyfile = {base / 'server.pem'}",
            "ssl_options.verify = verify_none",  # callers show a password
            "ssl_options.fail_if_no_peer_cert = false",
            "ssl_options.versions.1 = tlsv1.3",
            "ssl_options.versions.2 = tlsv1.2",
        ]
    lines = [
        *listeners,
        f"load_definitions = {base / 'definitions.json'}",
        "log.file = false",
        "log.console = true",
        "log.console.level = warning",
        "log.connection.level = error",  # that a process of ours ended is no news
    ]
    return "\n".join(lines) + "\n"


def _definitions(users: tuple[User, ...]) -> Mapping[str, Any]:
    bounds = {"max-length": MOST_NOTIFICATIONS, "message-ttl": WEEK}
    return {
        "vhosts": [{"name": "/"}],
        "users": [
            {
                "name": user.name,
                "password_hash": _hash(user.password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
            for user in users
        ],
        "permissions": [
            {"user": user.name, "vhost": "/", "configure": user.rights, "write": user.rights, "read": user.rights}
            for user in users
        ],
        "policies": [
            {
                "vhost": "/",
                "name": "notifications",
                "pattern": "^notifications\\.",
                "apply-to": "queues",
                "definition": bounds,
                "priority": 0,
            }
        ],
    }


def _hash(password: str) -> str:
    """As RabbitMQ keeps it: four bytes of salt, then the digest of salt and password."""
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _write(path: Path, text: str, group: int) -> None:
    partial = path.with_name(f"{path.name}.new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.chown(partial, 0, group)
    partial.replace(path)
