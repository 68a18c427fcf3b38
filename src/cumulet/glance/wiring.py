"""What glance-api's handlers work with, beyond core's: the registry, the store, the secret of the tickets."""

from dataclasses import dataclass, field

from cumulet.core.config import Config
from cumulet.core.http import Request
from cumulet.core.outbound import Outbound
from cumulet.glance.model import DIRECT, WEB
from cumulet.glance.peers import Peers
from cumulet.glance.registry_client import RegistryClient
from cumulet.glance.store import Store


@dataclass(frozen=True)
class Wiring:
    """``idle_seconds``: how long an upload may be silent; ``renew_seconds``: how often it says that it goes on."""

    registry: RegistryClient
    store: Store
    node: str
    ticket_secret: str
    idle_seconds: float = 60.0
    renew_seconds: float = 60.0
    outbound: Outbound = field(default_factory=Outbound)  # only the import loop asks it
    peers: Peers = field(default_factory=Peers)


def import_methods(config: Config) -> list[str]:
    return [DIRECT, WEB] if config.images.web_download else [DIRECT]


def wiring_of(request: Request) -> Wiring:
    wiring: Wiring = request.app.extras
    return wiring


def registry_of(request: Request) -> RegistryClient:
    return wiring_of(request).registry
