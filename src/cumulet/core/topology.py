"""The topology of a cloud of several nodes: ``cloud.toml`` read and checked, and what each node's own file says.

Pure: it reads one file and answers questions.  A role is a list of services of the map (``services.ROLES``), a
service may also be placed by its name; a node may have several roles, a role may be on several nodes.  What is in
the sections of ``cumulet.toml`` that do not differ from node to node (``[identity]``, ``[images]``, ``[compute]``,
``[console]``, ``[network]``, ``[agents]``) goes to every node as it is.  There are no secrets in it.
"""

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import UNSET

from cumulet.core import config as configuration
from cumulet.core.config import Config, bracketed
from cumulet.core.errors import BadRequest
from cumulet.services import BY_NAME, ROLES, SERVICES, Named, list_services

HOST_NAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.I)
INTERFACE = re.compile(r"[a-zA-Z0-9_.:-]{1,15}")
SSH_TARGET = re.compile(r"([a-z_][a-z0-9_-]{0,31}@)?[a-z0-9][a-z0-9.:-]{0,252}", re.I)
FORMS = (
    ("name", HOST_NAME, "host name"),
    ("external_interface", INTERFACE, "name of a device"),
    ("ssh", SSH_TARGET, "[user@]host"),
)
SWITCHING = "neutron-openvswitch-agent"
HERE = ("tunnel_address", "external_interface")
"""Options of ``[network]`` that are each node's own."""


class Cloud(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    region: str = "RegionOne"
    public_host: str = ""  # in the catalogue's URLs; empty: the first controller's public address
    lab: bool = False  # whether it may be broken on purpose


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str = ""  # empty: a lone controller's own; a MariaDB that the first of several runs


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str = ""  # empty: the first controller's own


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    on: bool | None = None  # None: in clouds of several nodes


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    address: str  # in the management network: what the nodes reach each other by
    roles: tuple[str, ...] = ()
    services: tuple[str, ...] = ()  # beyond those of its roles
    public_address: str = ""  # where its public APIs listen; empty: ``address``
    tunnel_address: str = ""  # its VXLAN end; empty: ``address``
    external_interface: str = ""  # the device that carries the public network
    ssh: str = ""  # where ``deploy`` logs in; empty: root@address


class Topology(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``cloud.toml``, checked."""

    nodes: tuple[Node, ...] = msgspec.field(name="node", default=())
    cloud: Cloud = Cloud()
    database: Database = Database()
    broker: Broker = Broker()
    tls: Tls = Tls()
    identity: configuration.Identity = msgspec.field(default_factory=configuration.Identity)
    images: configuration.Images = msgspec.field(default_factory=configuration.Images)
    compute: configuration.Compute = msgspec.field(default_factory=configuration.Compute)
    console: configuration.Console = msgspec.field(default_factory=configuration.Console)
    network: configuration.Network = msgspec.field(default_factory=configuration.Network)
    agents: configuration.Agents = msgspec.field(default_factory=configuration.Agents)


def file(config: Config) -> Path:
    """Where this node's copy is; controllers have one."""
    return config.etc / "cloud.toml"


def load(path: Path) -> Topology:
    """The topology in ``path``; BadRequest names file, node and field of what is wrong."""
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}") from error
    except BadRequest as error:
        raise BadRequest(f"{path}: {error.message}") from error


def parse(text: bytes | str) -> Topology:
    """The topology that ``text`` is, checked."""
    try:
        topology = msgspec.toml.decode(text, type=Topology, strict=True)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(_with_name(str(error), text)) from error
    wrong = next(_mistakes(topology), "")
    if wrong:
        raise BadRequest(wrong)
    return topology


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────


def get_node(topology: Topology, name: str) -> Node:
    """BadRequest if there is none of this name."""
    for node in topology.nodes:
        if node.name == name:
            return node
    raise BadRequest(f"no such node: {name}; there are {', '.join(node.name for node in topology.nodes)}")


def services_of(node: Node) -> tuple[Named, ...]:
    """What runs on the node, in the map's order."""
    return list_services(node.services, node.roles)


def runs(node: Node, service: str) -> bool:
    return BY_NAME[service] in services_of(node)


def controls(node: Node) -> bool:
    """Whether a controller service runs there: only such a node has the database and the cloud's secrets."""
    return any(not service.agent for service in services_of(node))


def controllers(topology: Topology) -> tuple[Node, ...]:
    """The nodes that run controller services; the first has the database and the broker, unless URLs are given."""
    return tuple(node for node in topology.nodes if controls(node))


def speaks_tls(topology: Topology) -> bool:
    """Whether services are reached by HTTPS: where a network is between nodes, unless it says otherwise."""
    return len(topology.nodes) > 1 if topology.tls.on is None else topology.tls.on


def public_host(topology: Topology) -> str:
    """What the catalogue's URLs lead to."""
    first = controllers(topology)[0]
    return topology.cloud.public_host or first.public_address or first.address


def tunnel_address(topology: Topology, node: Node) -> str:
    """The node's VXLAN end; empty where it is the only one that switches, or does not."""
    switching = [one for one in topology.nodes if runs(one, SWITCHING)]
    if node not in switching or len(switching) < 2:
        return ""
    return node.tunnel_address or node.address


def node_config(topology: Topology, node: Node) -> Config:
    """What this node's ``/etc/cumulet/cumulet.toml`` says.

    A controller asks itself before the others.  The database's URL is for controllers alone.  Where the topology
    has none for the database, neither has the node's file: it uses what it has itself.
    """
    here, chosen = controls(node), services_of(node)
    found = [one.address for one in controllers(topology)]
    if here:
        found.sort(key=lambda address: address != node.address)
    routes = "network" in node.roles or runs(node, "neutron-l3-agent")
    common = topology.network
    network = msgspec.structs.replace(
        common,
        tunnel_address=tunnel_address(topology, node),
        external_interface=node.external_interface,
        public_cidr=common.public_cidr if here or routes else "",
    )
    return Config(
        node=configuration.Node(
            name=node.name,
            region=topology.cloud.region,
            services=[] if chosen == SERVICES else [service.name for service in chosen],
        ),
        api=configuration.Api(
            bind=node.public_address or node.address,
            public_host=public_host(topology),
            internal_bind=node.address,
            controller=found[0],
            controllers=found if len(found) > 1 else [],
        ),
        database=_database(topology, node),
        broker=_broker(topology, node),
        tls=configuration.Tls(speaks_tls(topology)),
        identity=topology.identity,
        images=topology.images,
        compute=topology.compute,
        console=topology.console,
        network=network,
        agents=topology.agents,
    )


def _database(topology: Topology, node: Node) -> configuration.DatabaseOptions:
    """For controllers: the topology's; else the first one's MariaDB, on a socket if it is alone.  A node alone has
    a file.
    """
    found = controllers(topology)
    if topology.database.url or len(topology.nodes) < 2 or node not in found:
        return configuration.DatabaseOptions(topology.database.url if node in found else "")
    if len(found) == 1:
        return configuration.DatabaseOptions(private=True)
    url = f"mysql+mysqldb://cumulet@{bracketed(found[0].address)}/cumulet"
    return configuration.DatabaseOptions(url, private=node == found[0])


def _broker(topology: Topology, node: Node) -> configuration.Broker:
    """The topology's, else one that the first controller runs; a node alone needs none."""
    if topology.broker.url or len(topology.nodes) < 2:
        return configuration.Broker(topology.broker.url)
    first = controllers(topology)[0]
    place = "amqps://{}:5671" if speaks_tls(topology) else "amqp://{}:5672"
    return configuration.Broker(place.format(bracketed(first.address)), private=node == first)


def render(config: Config) -> str:
    """The configuration as TOML, without what is as by default; ``config.load`` reads the same back."""
    lines = ["# Made from the cloud's topology; every option with its default is in docs/reference/options.md."]
    default = Config()
    for section in msgspec.structs.fields(Config):
        if section.name == "etc_dir":
            continue
        mine, usual = getattr(config, section.name), getattr(default, section.name)
        values = {field: getattr(mine, field) for field in mine.__struct_fields__}
        differing = {
            field: value
            for field, value in values.items()
            if value != getattr(usual, field) or (section.name, field) == ("node", "name")
        }
        if differing:
            lines += ["", f"[{section.name}]", *(f"{field} = {_toml(value)}" for field, value in differing.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """JSON's scalars and lists of strings are TOML's, but for one character and numbers that are none."""
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# ── what may be wrong ────────────────────────────────────────────────────────────────────────────────────────


def _with_name(words: str, text: bytes | str) -> str:
    """msgspec's words, with the node's name where it says only which one in the list."""
    match = re.search(r"\$\.node\[(\d+)\]", words)
    if match is None:
        return words
    nodes = msgspec.toml.decode(text)["node"]
    one = nodes[int(match[1])]
    name = one.get("name", UNSET) if isinstance(one, dict) else UNSET
    return f"node {name}: {words}" if isinstance(name, str) else f"node {int(match[1]) + 1}: {words}"


def _mistakes(topology: Topology) -> Iterator[str]:
    """One line for each thing that is wrong, naming node and field."""
    if not topology.nodes:
        yield "there is no [[node]]"
        return
    for node in topology.nodes:
        yield from (f"node {node.name}: {words}" for words in _node_mistakes(node))
    for field in ("name", "address", "tunnel_address", "public_address"):
        yield from _twice(field, (getattr(node, field) for node in topology.nodes))
    for field in HERE:
        if getattr(topology.network, field):
            yield f"network.{field} is a node's own: it belongs into its [[node]]"
    if topology.cloud.public_host and not SSH_TARGET.fullmatch(topology.cloud.public_host):
        yield f"cloud.public_host {topology.cloud.public_host!r} is no host name or address"
    yield from _placement_mistakes(topology)


def _node_mistakes(node: Node) -> Iterator[str]:
    for field, pattern, what in FORMS:
        value = getattr(node, field)
        if (value or field == "name") and not pattern.fullmatch(value):
            yield f"{field} {value!r} is no {what}"
    for field in ("address", "public_address", "tunnel_address"):
        value = getattr(node, field)
        if (value or field == "address") and not _is_address(value):
            yield f"{field} {value!r} is no IP address of a host"
    for kind, names, known in (("role", node.roles, ROLES), ("service", node.services, BY_NAME)):
        for name in names:
            if name not in known:
                yield f"no such {kind}: {name!r}; there are {', '.join(known)}"
    if not services_of(node):
        yield "it has neither roles with services nor services"
    if node.external_interface and not runs(node, SWITCHING):
        yield f"external_interface: nothing uses it without {SWITCHING}"


def _placement_mistakes(topology: Topology) -> Iterator[str]:
    found = controllers(topology)
    if not found:
        yield "no node has the role controller"
        return
    apart = [one.name for one in SERVICES if one.catalog and one not in services_of(found[0])]
    if apart and not topology.cloud.public_host:
        yield (
            f"node {found[0].name}: {', '.join(apart)} does not run there with the other public APIs, and no "
            "cloud.public_host leads to all of them"
        )


def _twice(field: str, values: Iterable[str]) -> Iterator[str]:
    for value, count in Counter(filter(None, values)).items():
        if count > 1:
            yield f"{count} nodes have the {field} {value!r}"


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_multicast)
