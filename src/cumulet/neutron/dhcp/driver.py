"""The real side of the DHCP agent: a namespace, a port on the switch, and a dnsmasq per network.

dnsmasq goes on when the agent ends and is found again by its pid file (``host.dnsmasq``).
"""

import logging
from collections.abc import Mapping

from cumulet.core.config import Config
from cumulet.core.errors import Retry
from cumulet.host import dnsmasq, netns, openvswitch, process
from cumulet.host.interface import ensure_interface, ensure_namespace
from cumulet.host.jsonrpc import OvsdbError
from cumulet.host.netlink import Netlink, NetlinkError, Route
from cumulet.host.ovsdb import Ovsdb
from cumulet.host.ovsdb_rows import Switch
from cumulet.neutron.dhcp import plan as planning
from cumulet.neutron.dhcp import release
from cumulet.neutron.model import DhcpIntent
from cumulet.neutron.spaces import Spaces

LOG = logging.getLogger(__name__)
PREFIX = "qdhcp-"


class DnsmasqHost:
    """What ``agent.DhcpHost`` asks for, on this machine."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._spaces = _spaces(config)
        self._switch: Switch | None = None

    def look(self) -> frozenset[str]:
        """The networks of which this host has something; one look at the switch for the whole pass."""
        self._switch, found = self._spaces.look()
        return found

    def ensure(self, intent: DhcpIntent) -> tuple[str, ...]:
        """Everything for this network as wanted; what was refused of its configuration."""
        assert self._switch is not None
        directory = self._spaces.directory(intent.network_id)
        wanted = planning.plan(intent, str(directory), tuple(self._config.network.dns_servers))
        namespace = PREFIX + intent.network_id
        outer, inner = planning.interface(intent)
        try:
            ensure_namespace(self._config.run, namespace)
            with netns.enter(namespace):
                for key, value in planning.SYSCTLS.items():
                    netns.sysctl(key, value)
            ensure_interface(
                self._spaces.ovsdb, self._switch, namespace, outer, inner,
                intent.port_id, intent.mac, intent.mtu, planning.addresses(intent),
            )  # fmt: skip
            self._spaces.remove_devices(intent.network_id, {inner})  # of an earlier DHCP port
            _ensure_gateways(namespace, inner, intent)
            # before dnsmasq is told of changes: it then writes the file anew, and we might read it empty
            held = release.stale(directory / dnsmasq.LEASES, wanted.files["hosts"])
            if dnsmasq.ensure(namespace, directory, wanted.arguments, wanted.files):
                LOG.info("dnsmasq started in %s", namespace)
            if held:
                release.release(namespace, inner, intent.ips, held)
        except (OvsdbError, NetlinkError, netns.NetnsError, process.ProcessError) as error:
            raise Retry(str(error)) from error
        return wanted.refused

    def remove(self, network_id: str) -> None:
        self._spaces.remove(network_id)


def remove_all(config: Config) -> None:
    """Take down every network that our agents set up on this machine; for ``cumulet down``."""
    _spaces(config).remove_all()


def _spaces(config: Config) -> Spaces:
    ovsdb = Ovsdb(openvswitch.database_socket(str(config.run / "openvswitch")))
    return Spaces(config.run, PREFIX, "dhcp", _outer_device, ovsdb)


def _outer_device(inner: str) -> str:
    return "tap" + inner.removeprefix("ns-") if inner.startswith("ns-") else ""


def _ensure_gateways(namespace: str, inner: str, intent: DhcpIntent) -> None:
    """A default route, so that dnsmasq can ask the name servers beyond the network's router."""
    with netns.enter(namespace), Netlink() as link:
        for subnet in intent.subnets:
            if subnet.gateway and subnet.dhcp:
                everything = "0.0.0.0/0" if subnet.ip_version == 4 else "::/0"
                link.ensure_route(Route(everything, inner, subnet.gateway))
                return


def networks_here(config: Config) -> Mapping[str, str]:
    """Namespace by network id, for the metadata agent."""
    return {key: name for key, name in _spaces(config).name_by_id().items() if netns.exists(name)}
