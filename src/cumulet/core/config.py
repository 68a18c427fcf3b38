"""Configuration: one TOML file, every option in one table, as few as possible.

``docs/reference/options.md`` is generated from the types below: name, type, unit (in the name), default and the
docstring beneath each field's comment.  Secrets are not options: see ``core.secrets``.
"""

import socket
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from cumulet.core.errors import BadRequest
from cumulet.services import BY_NAME, SERVICES, Named, list_services

DEFAULT_FILE = Path("/etc/cumulet/cumulet.toml")


class Node(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(description="this node's name, on the map and in placement")] = socket.gethostname()
    region: Annotated[str, Meta(description="the region's name in the catalogue")] = "RegionOne"
    state_dir: Annotated[str, Meta(description="what must survive a reboot")] = "/var/lib/cumulet"
    run_dir: Annotated[str, Meta(description="sockets and pid files; emptied at boot")] = "/run/cumulet"
    log_dir: Annotated[str, Meta(description="one JSON log file per service")] = "/var/log/cumulet"
    user: Annotated[str, Meta(description="API and controller services run as this user")] = "cumulet"
    services: Annotated[list[str], Meta(description="what runs on this node, by name; empty: every service")] = []


class Api(msgspec.Struct, forbid_unknown_fields=True):
    bind: Annotated[str, Meta(description="address that the public APIs listen on")] = "127.0.0.1"
    public_host: Annotated[str, Meta(description="host name or address in the catalogue's URLs")] = "127.0.0.1"
    internal_bind: Annotated[str, Meta(description="address of what only agents call")] = "127.0.0.1"
    controller: Annotated[str, Meta(description="where agents find the controller")] = "127.0.0.1"
    controllers: Annotated[
        list[str], Meta(description="several of them, in the order in which they are tried; empty: `controller`")
    ] = []


class DatabaseOptions(msgspec.Struct, forbid_unknown_fields=True):
    url: Annotated[
        str, Meta(description="SQLAlchemy URL, without a password: that of the secrets; empty: what this node has")
    ] = ""
    private: Annotated[
        bool, Meta(description="this node runs it, a MariaDB of the cloud's own; without `url` on a socket alone")
    ] = False
    cache_mb: Annotated[int, Meta(description="memory that a private MariaDB keeps pages in", ge=16)] = 128


class Broker(msgspec.Struct, forbid_unknown_fields=True):
    url: Annotated[str, Meta(description="AMQP URL of the broker between the nodes; empty: none")] = ""
    private: Annotated[bool, Meta(description="this node runs it, a RabbitMQ of the cloud's own")] = False


class Tls(msgspec.Struct, forbid_unknown_fields=True):
    on: Annotated[bool, Meta(description="services speak HTTPS, with certificates of the cloud's own")] = False


class Identity(msgspec.Struct, forbid_unknown_fields=True):
    token_seconds: Annotated[int, Meta(description="life of a token", ge=60)] = 3600
    bcrypt_rounds: Annotated[int, Meta(description="cost of a password hash", ge=4, le=20)] = 12
    key_rotation_seconds: Annotated[int, Meta(description="age at which the signing key is replaced")] = 86400


class Images(msgspec.Struct, forbid_unknown_fields=True):
    largest_bytes: Annotated[int, Meta(description="largest image that can be uploaded")] = 1 << 40
    web_download: Annotated[bool, Meta(description="users may have images fetched from public URLs")] = True


class Compute(msgspec.Struct, forbid_unknown_fields=True):
    virt_type: Annotated[str, Meta(description="auto (try KVM, else TCG), kvm, qemu")] = "auto"
    cpu_ratio: Annotated[float, Meta(description="virtual CPUs per real one")] = 16.0
    memory_ratio: Annotated[float, Meta(description="memory given out per real memory")] = 1.0
    disk_ratio: Annotated[float, Meta(description="disk given out per real disk")] = 1.0
    reserved_memory_mb: Annotated[int, Meta(description="memory kept for the host itself")] = 1024
    overhead_memory_mb: Annotated[int, Meta(description="memory of a server beyond its flavor's")] = 110
    image_cache_mb: Annotated[int, Meta(description="bound of the cache of base images")] = 20480
    image_cache_seconds: Annotated[int, Meta(description="age at which an unused base image goes")] = 86400
    shared_disks: Annotated[
        str,
        Meta(description="a directory that compute hosts have in common, for servers' disks; empty: none"),
    ] = ""
    console_log_bytes: Annotated[int, Meta(description="bound of one server's console log")] = 1048576
    stop_seconds: Annotated[int, Meta(description="how long a guest may take to shut down")] = 60
    resize_to_same_host: Annotated[bool, Meta(description="whether a resized server may stay on its host")] = True
    live_migration_seconds: Annotated[
        int, Meta(description="age at which a live migration that has not arrived is given up", ge=1)
    ] = 3600
    live_migration_mib: Annotated[
        int, Meta(description="MiB a second for one live migration; 0: all there is", ge=0)
    ] = 0
    destroy_limit: Annotated[int, Meta(description="most servers destroyed in one pass")] = 100


class Console(msgspec.Struct, forbid_unknown_fields=True):
    token_seconds: Annotated[int, Meta(description="how long a console's URL may wait for its use", ge=1)] = 600
    url: Annotated[str, Meta(description="where browsers find the consoles; empty: port 6080 of public_host")] = ""


class Network(msgspec.Struct, forbid_unknown_fields=True):
    datapath: Annotated[str, Meta(description="auto (kernel if it has one), system, netdev")] = "auto"
    mtu: Annotated[int, Meta(description="MTU of the physical network")] = 1500
    tunnel_address: Annotated[str, Meta(description="this node's VXLAN end; empty: no tunnels")] = ""
    external_interface: Annotated[
        str,
        Meta(
            description="the device that carries the public network; empty: this node is the router of public_cidr"
        ),
    ] = ""
    public_cidr: Annotated[str, Meta(description="the public network that up makes")] = "172.24.4.0/24"
    private_cidr: Annotated[str, Meta(description="the private network that up makes")] = "10.254.0.0/24"
    dns_servers: Annotated[list[str], Meta(description="where dnsmasq asks for other names")] = []
    dns_domain: Annotated[str, Meta(description="domain of the servers' names")] = "openstacklocal"
    unwire_limit: Annotated[int, Meta(description="most wired ports that may lose their intent in one pass")] = 20


class Agents(msgspec.Struct, forbid_unknown_fields=True):
    resync_seconds: Annotated[float, Meta(description="time between two full passes")] = 30.0
    heartbeat_seconds: Annotated[float, Meta(description="time between two signs of life")] = 10.0
    down_seconds: Annotated[float, Meta(description="silence after which an agent counts as down")] = 35.0
    failover_seconds: Annotated[
        float, Meta(description="silence after which others take over an agent's networks and routers; 0: never")
    ] = 120.0


class Config(msgspec.Struct, forbid_unknown_fields=True):
    node: Node = msgspec.field(default_factory=Node)
    api: Api = msgspec.field(default_factory=Api)
    database: DatabaseOptions = msgspec.field(default_factory=DatabaseOptions)
    broker: Broker = msgspec.field(default_factory=Broker)
    tls: Tls = msgspec.field(default_factory=Tls)
    identity: Identity = msgspec.field(default_factory=Identity)
    images: Images = msgspec.field(default_factory=Images)
    compute: Compute = msgspec.field(default_factory=Compute)
    console: Console = msgspec.field(default_factory=Console)
    network: Network = msgspec.field(default_factory=Network)
    agents: Agents = msgspec.field(default_factory=Agents)
    etc_dir: str = "/etc/cumulet"

    @property
    def state(self) -> Path:
        return Path(self.node.state_dir)

    @property
    def run(self) -> Path:
        return Path(self.node.run_dir)

    @property
    def logs(self) -> Path:
        return Path(self.node.log_dir)

    @property
    def etc(self) -> Path:
        return Path(self.etc_dir)

    @property
    def database_url(self) -> str:
        own = f"mysql+mysqldb://cumulet@localhost/cumulet?unix_socket={self.run}/mariadb/mariadb.sock"
        url = self.database.url or (own if self.database.private else f"sqlite:///{self.state}/db/cumulet.sqlite")
        if url.startswith("sqlite") or urlsplit(url).password is not None:
            return url
        return f"{url}{'&' if '?' in url else '?'}read_default_file={self.database_password_file}"

    @property
    def database_password_file(self) -> Path:
        """What MariaDB's client library reads, so that no URL holds a password."""
        return self.etc / "database.cnf"

    @property
    def services(self) -> tuple[Named, ...]:
        """What runs on this node."""
        return list_services(self.node.services) if self.node.services else SERVICES

    @property
    def controls(self) -> bool:
        """Whether a controller service runs here: only such a node has the database and the cloud's secrets."""
        return any(not service.agent for service in self.services)

    @property
    def keystone_url(self) -> str:
        return self.public_url(BY_NAME["keystone"].port) + "/v3"

    @property
    def console_url(self) -> str:
        return (self.console.url or self.public_url(BY_NAME["nova-novncproxy"].port)).rstrip("/")

    @property
    def scheme(self) -> str:
        """What a controller's ports speak."""
        return "https" if self.tls.on else "http"

    def public_url(self, port: int) -> str:
        """A public API as users reach it."""
        return f"{self.scheme}://{bracketed(self.api.public_host)}:{port}"

    def controller_urls(self, port: int) -> list[str]:
        """What listens on this port of each controller, in the order in which they are tried."""
        hosts = self.api.controllers or [self.api.controller]
        return [f"{self.scheme}://{bracketed(host)}:{port}" for host in hosts]


def bracketed(host: str) -> str:
    """A host as URLs have it."""
    return f"[{host}]" if ":" in host else host


def load(path: Path = DEFAULT_FILE) -> Config:
    """The configuration in ``path``; defaults if there is no such file.  BadRequest names what is wrong."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Config(etc_dir=str(path.parent))
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}") from error
    try:
        config = msgspec.toml.decode(raw, type=Config, strict=True)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise BadRequest(f"{path}: {error}") from error
    unknown = [name for name in config.node.services if name not in BY_NAME]
    if unknown:
        raise BadRequest(f"{path}: no such service in node.services: {', '.join(unknown)}")
    config.etc_dir = str(path.parent)
    return config
