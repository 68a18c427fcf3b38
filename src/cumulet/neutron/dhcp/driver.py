"""The real side of the DHCP agent: a namespace, a port on the switch, and a dnsmasq per network.

dnsmasq goes on when the agent ends and is found again by its pid file (``host.dnsmasq``).
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from cumulet.core.config import Config
from cumulet.core.errors import Retry
from cumulet.host import dnsmasq, netns, openvswitch, process
from cumulet.host.interface import (
    ensure_interface,
    ensure_namespace,
    own_namespaces,
    remove_interface,
    remove_namespace,
)
from cumulet.host.jsonrpc import OvsdbError
from cumulet.host.netlink import Netlink, NetlinkError, Route
from cumulet.host.ovsdb import Ovsdb
from cumulet.host.ovsdb_rows import Switch
from cumulet.neutron.dhcp import plan as planning
from cumulet.neutron.dhcp import release
from cumulet.neutron.model import DhcpIntent

LOG = logging.getLogger(__name__)
PREFIX = "qdhcp-"


class DnsmasqHost:
    """What ``agent.DhcpHost`` asks for, on this machine."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ovsdb = Ovsdb(openvswitch.database_socket(str(config.run / "openvswitch")))
        self._switch: Switch | None = None

    def look(self) -> frozenset[str]:
        """The networks of which this host has something; one look at the switch for the whole pass."""
        try:
            self._switch = self._ovsdb.look()
        except (OSError, OvsdbError) as error:
            raise Retry(f"Open vSwitch does not answer: {error}") from error
        names = own_namespaces(self._config.run, PREFIX)
        return frozenset(name.removeprefix(PREFIX) for name in names)

    def ensure(self, intent: DhcpIntent) -> tuple[str, ...]:
        """Everything for this network as wanted; what was refused of its configuration."""
        assert self._switch is not None
        directory = self._directory(intent.network_id)
        wanted = planning.plan(intent, str(directory), tuple(self._config.network.dns_servers))
        namespace = PREFIX + intent.network_id
        outer, inner = planning.interface(intent)
        try:
            ensure_namespace(self._config.run, namespace)
            with netns.enter(namespace):
                for key, value in planning.SYSCTLS.items():
                    netns.sysctl(key, value)
            ensure_interface(
                self._ovsdb, self._switch, namespace, outer, inner,
                intent.port_id, intent.mac, intent.mtu, planning.addresses(intent),
            )  # fmt: skip
            self._remove_strangers(namespace, inner)
            _ensure_gateways(namespace, inner, intent)
            if dnsmasq.ensure(namespace, directory, wanted.arguments, wanted.files):
                LOG.info("dnsmasq started in %s", namespace)
            if held := release.stale(directory / dnsmasq.LEASES, wanted.files["hosts"]):
                release.release(namespace, inner, intent.ips, held)
        except (OvsdbError, NetlinkError, netns.NetnsError, process.ProcessError) as error:
            raise Retry(str(error)) from error
        return wanted.refused

    def remove(self, network_id: str) -> None:
        """Nothing of this network is left here."""
        directory = self._directory(network_id)
        namespace = PREFIX + network_id
        try:
            dnsmasq.end(directory)
            for device in _outer_devices(namespace):
                remove_interface(self._ovsdb, device)
            remove_namespace(self._config.run, namespace)
        except (OvsdbError, NetlinkError, netns.NetnsError, process.ProcessError) as error:
            raise Retry(str(error)) from error
        shutil.rmtree(directory, ignore_errors=True)

    def _directory(self, network_id: str) -> Path:
        return self._config.run / "dhcp" / network_id

    def _remove_strangers(self, namespace: str, inner: str) -> None:
        """Devices of an earlier DHCP port of the same network."""
        for device in _outer_devices(namespace, besides=inner):
            remove_interface(self._ovsdb, device)


def remove_all(config: Config) -> None:
    """Take down every network that our agents set up on this machine; for ``cumulet down``."""
    host = DnsmasqHost(config)
    for name in own_namespaces(config.run, PREFIX):
        try:
            host.remove(name.removeprefix(PREFIX))
        except Retry as reason:
            LOG.warning("%s: %s", name, reason)
            _remove_without_switch(config, name)


def _remove_without_switch(config: Config, namespace: str) -> None:
    """The same when Open vSwitch is gone already, and the ports with it."""
    directory = config.run / "dhcp" / namespace.removeprefix(PREFIX)
    dnsmasq.end(directory)
    with Netlink() as link:
        for device in _outer_devices(namespace):
            link.delete_link(device)
    remove_namespace(config.run, namespace)
    shutil.rmtree(directory, ignore_errors=True)


def _outer_devices(namespace: str, besides: str = "") -> list[str]:
    """The outer ends of the namespace's veth pairs, by our naming."""
    if not netns.exists(namespace):
        return []
    with netns.enter(namespace), Netlink() as link:
        inner = [name for name in link.links() if name.startswith("ns-") and name != besides]
    return ["tap" + name.removeprefix("ns-") for name in inner]


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
    names = own_namespaces(config.run, PREFIX)
    return {name.removeprefix(PREFIX): name for name in names if netns.exists(name)}
