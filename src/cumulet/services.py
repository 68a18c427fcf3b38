"""THE MAP: one line per named service.  Names are what an operator greps for in ``ps``, logs and this map.

``build`` is ``module:function``, imported when the node's parent loads the code.  ``port`` is where it serves:
public APIs on ``api.bind``, what only agents and other services call on ``api.internal_bind``.
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Named:
    name: str
    role: str  # one of ``ROLES``
    build: str
    port: int = 0
    public: bool = False  # in the catalogue's reach
    agent: bool = False  # runs on a host: as root, without the database
    catalog: tuple[tuple[str, str, str], ...] = ()  # (service type, service name, path)
    also: tuple[str, ...] = ()  # further roles whose nodes need it


ROLES = ("controller", "network", "compute", "storage")

SERVICES: tuple[Named, ...] = (
    Named("keystone", "controller", "cumulet.keystone.app:build", 5000, True,
          catalog=(("identity", "keystone", "/v3"),)),
    Named("glance-api", "controller", "cumulet.glance.app:build", 9292, True,
          catalog=(("image", "glance", ""),)),
    Named("glance-registry", "controller", "cumulet.glance.registry:build", 9191),
    Named("neutron-server", "controller", "cumulet.neutron.app:build", 9696, True,
          catalog=(("network", "neutron", ""),)),
    Named("nova-api", "controller", "cumulet.nova.app:build", 8774, True,
          catalog=(("compute", "nova", "/v2.1"),)),
    Named("nova-api-metadata", "controller", "cumulet.nova.metadata:build", 8775),
    Named("nova-scheduler", "controller", "cumulet.nova.scheduler:build"),
    Named("nova-conductor", "controller", "cumulet.nova.conductor:build", 8783),
    Named("nova-consoleauth", "controller", "cumulet.nova.consoleauth:build", 8785),
    Named("nova-novncproxy", "controller", "cumulet.nova.novncproxy:build", 6080, True),
    Named("cumulet-notifier", "controller", "cumulet.cli.notifier:build"),
    Named("cumulet-metrics", "controller", "cumulet.cli.metrics:build", 9709),
    Named("neutron-openvswitch-agent", "network", "cumulet.neutron.l2.agent:build", agent=True,
          also=("compute",)),
    Named("neutron-dhcp-agent", "network", "cumulet.neutron.dhcp.agent:build", agent=True),
    Named("neutron-l3-agent", "network", "cumulet.neutron.l3.agent:build", agent=True),
    Named("neutron-metadata-agent", "network", "cumulet.neutron.metadata.agent:build", agent=True),
    Named("nova-compute", "compute", "cumulet.nova.compute.agent:build", 8784, agent=True),
)  # fmt: skip

BY_NAME = {service.name: service for service in SERVICES}


def list_services(names: Collection[str] = (), roles: Collection[str] = ()) -> tuple[Named, ...]:
    """The services of these names and roles, in the map's order."""
    return tuple(one for one in SERVICES if one.name in names or not roles_of(one).isdisjoint(roles))


def roles_of(service: Named) -> frozenset[str]:
    """Every role whose nodes run it."""
    return frozenset((service.role, *service.also))
