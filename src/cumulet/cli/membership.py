"""``cumulet node token|join|drain|remove``, and what ``deploy`` asks of a node: ``settle`` and ``parcel``."""

import argparse
import http.client
import re
import ssl
import sys
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cumulet.cli import lock, parcel, status
from cumulet.cli.cloud import Cloud, Json
from cumulet.core import config as configuration
from cumulet.core import parcels, secrets, topology
from cumulet.core.config import Config
from cumulet.core.errors import BadRequest, Unavailable
from cumulet.core.parcels import Parcel

TOKEN = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{64})")
SECONDS = 30.0
AGENTS = {"DHCP agent": ("dhcp-networks", "networks", "network"), "L3 agent": ("l3-routers", "routers", "router")}
"""By their type: where what an agent serves is listed, under which name, and what one of it is."""


def settle(options: argparse.Namespace) -> int:
    """Put the parcel on standard input in place; with ``--dry-run`` only tell what is there."""
    status.require_root("node settle", "it writes the node's configuration and secrets")
    found = _decoded(sys.stdin.buffer.read())
    config = configuration.load(options.config)
    running = status.running(config)
    if options.dry_run:
        known = parcel.Found(parcel.version(), parcel.look(found, options.config.parent), running)
        sys.stdout.write(msgspec.json.encode(known).decode() + "\n")
        return 0
    with lock.alone(config, "node settle"):
        written = _put(found, options)
    print(", ".join(written) or "nothing to write")
    return 0


def _put(found: Parcel, options: argparse.Namespace) -> list[str]:
    written = parcel.settle(found, options.config)
    parcel.give(configuration.load(options.config))
    return written


def give(options: argparse.Namespace) -> int:
    """The parcel of a node of the topology on standard input; it holds secrets, so no terminal gets it."""
    status.require_root("node parcel", "it reads the cloud's secrets")
    if sys.stdout.isatty():
        sys.exit("cumulet node parcel writes secrets, and not to a terminal")
    text = sys.stdin.read()
    found = topology.parse(text)
    made = parcels.make(found, text, topology.get_node(found, options.name), options.config.parent)
    sys.stdout.write(msgspec.json.encode(made).decode() + "\n")
    return 0


def token(options: argparse.Namespace) -> int:
    """A token for a node of the topology."""
    from cumulet.core import joining
    from cumulet.core.bus import LocalBus
    from cumulet.core.db import Database

    status.require_root("node token", "it reads the cloud's secrets")
    config = _controller(options)
    node = topology.get_node(topology.load(topology.file(config)), options.name)
    joining.check(topology.controls(node), node.name)
    with Database(config.database_url, LocalBus()).transaction() as tx:
        print(joining.issue(tx, secrets.load(config.etc).host_secret, node.name, options.minutes * 60.0))
    return 0


def join(options: argparse.Namespace) -> int:
    """Fetch this node's parcel, put it in place and start."""
    from cumulet.cli import up

    status.require_root("node join", "it writes the node's configuration and starts its services")
    config = configuration.load(options.config)
    if status.running(config):
        sys.exit(f"services run on this node as {config.node.name} already: 'cumulet down' first")
    if secrets.path(config.etc).exists() and "host_secret" in secrets.path(config.etc).read_text():
        sys.exit(f"this node has a cloud of its own ({secrets.path(config.etc)}): 'cumulet purge' first")
    found = fetch(options.url, options.token)
    with lock.alone(config, "node join"):
        written = _put(found, options)
    print(f"this node is {found.node}: {', '.join(written) or 'nothing to write'}", flush=True)
    return up.main(argparse.Namespace(config=options.config, no_server=True))


def fetch(url: str, words: str) -> Parcel:
    """What the controller at ``url`` has for who holds this token."""
    from cumulet.core import joining

    match, place = TOKEN.fullmatch(words), urlsplit(url)
    if match is None:
        raise BadRequest("this is not a token of 'cumulet node token'")
    if place.scheme not in ("http", "https") or not place.hostname:
        raise BadRequest(f"{url} is not the URL of a controller, as http://10.0.0.1:8783 is")
    number, key = match.groups()
    connection = _connection(place.scheme, place.hostname, place.port or 8783)
    body = msgspec.json.encode({"proof": joining.prove(key)})
    try:
        connection.request("POST", f"/join/{number}", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url} does not answer: {getattr(error, 'strerror', None) or error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise BadRequest(f"the controller refuses: {_reason(answer)}")
    return joining.opened(key, answer)


def _connection(scheme: str, host: str, port: int) -> http.client.HTTPConnection:
    """Who joins does not know the cloud's authority yet, and need not: what is said is sealed with the token."""
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=SECONDS)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)


def drain(options: argparse.Namespace) -> int:
    """Nothing new goes to the node, and its networks and routers go elsewhere; then tell what is still there."""
    config = _running_controller(options, "node drain")
    _known(config, options.name)
    left = drained(Cloud(config), options.name)
    for line in left:
        print(f"  {line}")
    if left:
        sys.exit(f"{options.name} is disabled, and not drained: that is still there; move or delete it, and repeat")
    print(f"{options.name} is drained: 'cumulet down' on it, then 'cumulet node remove {options.name}'")
    return 0


def drained(cloud: Cloud, host: str) -> list[str]:
    """What is still on the host after it was disabled."""
    for service in _services(cloud, host):
        if service["binary"] == "nova-compute" and service["status"] == "enabled":
            wish = {"status": "disabled", "disabled_reason": "drained"}
            cloud.put("compute", f"/os-services/{service['id']}", wish)
    every = cloud.get("network", "/v2.0/agents")["agents"]
    for agent in every:
        if agent["host"] == host and agent["agent_type"] in AGENTS:
            if agent["admin_state_up"]:
                cloud.put("network", f"/v2.0/agents/{agent['id']}", {"agent": {"admin_state_up": False}})
            if any(_can_take(other, agent) for other in every):
                _move(cloud, agent)
    return there(cloud, host)


def remove(options: argparse.Namespace) -> int:
    """Forget a node that is empty and off."""
    config = _running_controller(options, "node remove")
    name, cloud = options.name, Cloud(config)
    left = there(cloud, name)
    for line in left:
        print(f"  {line}")
    if left:
        sys.exit(f"{name} is not empty: 'cumulet node drain {name}' first")
    alive = [one["binary"] for one in _services(cloud, name) if one["state"] == "up"]
    alive += [one["binary"] for one in _agents(cloud, name) if one["alive"]]
    if alive:
        seconds = config.agents.down_seconds
        sys.exit(f"{name} lives: {', '.join(alive)}; 'cumulet down' on it, and wait {seconds:.0f} s")
    forget(config, cloud, name)
    print(f"{name} is forgotten; take it out of {topology.file(config)}")
    return 0


def forget(config: Config, cloud: Cloud, name: str) -> None:
    """By the APIs as far as they know of it; then whatever else has told of itself from there."""
    import sqlalchemy as sa

    from cumulet.core.bus import LocalBus
    from cumulet.core.db import Database
    from cumulet.core.tables import agents, join_tokens

    for service in _services(cloud, name):
        cloud.delete("compute", f"/os-services/{service['id']}")
    for agent in _agents(cloud, name):
        cloud.delete("network", f"/v2.0/agents/{agent['id']}")
    with Database(config.database_url, LocalBus()).transaction() as tx:
        tx.write(sa.delete(agents).where(agents.c.host == name))
        tx.write(sa.delete(join_tokens).where(join_tokens.c.node == name))


def there(cloud: Cloud, host: str) -> list[str]:
    """A line for each server, network and router on the host."""
    servers = cloud.get("compute", f"/servers/detail?all_tenants=1&host={host}")["servers"]
    lines = [f"server {one['id']}  {one['name']}  {one['status']}" for one in servers]
    for agent in _agents(cloud, host):
        lines += [f"{what} {key}" for what, key in _served(cloud, agent)]
    return lines


def _served(cloud: Cloud, agent: Json) -> list[tuple[str, str]]:
    if agent["agent_type"] not in AGENTS:
        return []
    place, key, what = AGENTS[agent["agent_type"]]
    return [(what, one["id"]) for one in cloud.get("network", f"/v2.0/agents/{agent['id']}/{place}")[key]]


def _can_take(other: Json, agent: Json) -> bool:
    same = other["agent_type"] == agent["agent_type"] and other["host"] != agent["host"]
    return bool(same and other["alive"] and other["admin_state_up"])


def _move(cloud: Cloud, agent: Json) -> None:
    """Taken from this agent; neutron-server gives it to another that is enabled."""
    place = AGENTS[agent["agent_type"]][0]
    for _, key in _served(cloud, agent):
        cloud.delete("network", f"/v2.0/agents/{agent['id']}/{place}/{key}")


def _services(cloud: Cloud, host: str) -> list[Json]:
    found: list[Json] = cloud.get("compute", f"/os-services?host={host}")["services"]
    return found


def _agents(cloud: Cloud, host: str) -> list[Json]:
    return [one for one in cloud.get("network", "/v2.0/agents")["agents"] if one["host"] == host]


def _known(config: Config, name: str) -> None:
    topology.get_node(topology.load(topology.file(config)), name)


def _controller(options: argparse.Namespace) -> Config:
    config = configuration.load(options.config)
    if not config.controls:
        sys.exit(f"this node is no controller; {config.api.controller} is")
    return config


def _running_controller(options: argparse.Namespace, command: str) -> Config:
    config = _controller(options)
    status.require_running(config, command, "it reads the administrator's password")
    if not topology.HOST_NAME.fullmatch(options.name):
        raise BadRequest(f"{options.name!r} is no name of a node")
    return config


def _decoded(raw: bytes) -> Parcel:
    try:
        return msgspec.json.decode(raw, type=Parcel)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"this is no parcel: {error}") from error


def _reason(answer: bytes) -> str:
    try:
        document: Any = msgspec.json.decode(answer)
        return str(document["error"]["message"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return answer[:200].decode(errors="replace")
