"""What a named service is made of, and what it is given.

A service's module has ``build(env) -> Service``.  Controller services get a ``Controllers`` (with the
database), agents a ``Hosts`` (without): what runs on a host has no way to the database.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cumulet.core.bus import Bus
from cumulet.core.client import Controller
from cumulet.core.config import Config
from cumulet.core.reconcile import Reconciler


@dataclass(frozen=True)
class Service:
    """``app``: what it serves, an ASGI application; ``loops``: what it reconciles.

    ``start`` is called once with the function that wakes every loop, after the fork and before the loops run,
    for sources of events (libvirt, OVSDB); ``stop`` at SIGTERM.
    """

    app: Any = None
    loops: Sequence[Reconciler[Any]] = ()
    start: Callable[[Callable[[str], None]], None] | None = None
    stop: Callable[[], None] | None = None
    details: Callable[[], dict[str, Any]] = field(default=dict)  # told with each heartbeat
    websockets: bool = False  # whether ``app`` takes any


@dataclass(frozen=True)
class HostEnv:
    """What an agent is given."""

    config: Config
    bus: Bus
    host: str
    nova: Controller  # nova-conductor
    neutron: Controller  # neutron-server
    glance: Controller  # glance-api
    metadata: Controller  # nova's metadata API
    metadata_secret: str = ""
