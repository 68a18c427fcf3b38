"""``cumulet down`` and ``cumulet purge``: stop everything, and leave nothing behind.

Only what carries our mark is touched: domains with our metadata on our own libvirtd, bridges of our own Open
vSwitch, namespaces that our agents wrote down, our nftables tables.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cumulet.cli import parts, status
from cumulet.cli.leftovers import leftovers
from cumulet.cli.up import SYSTEMD, UNIT
from cumulet.core import config as configuration
from cumulet.core.config import Config
from cumulet.core.errors import Retry
from cumulet.host import libvirtd, process

NODE_SECONDS, GUEST_SECONDS = 30.0, 30.0


def main(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        sys.exit("cumulet down needs root")
    return down(configuration.load(options.config), options.now)


def purge(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        sys.exit("cumulet purge needs root")
    config = configuration.load(options.config)
    places = [config.state, config.logs, config.etc]
    if not options.yes:
        print("This removes every server, image, network and account of this cloud for ever:")
        print("\n".join(f"  {place}" for place in places))
        if not sys.stdin.isatty() or input("Type 'purge' to go on: ") != "purge":
            sys.exit("nothing was removed")
    code = down(config, now=True)
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
    print("the data is gone")
    return code


def down(config: Config, now: bool) -> int:
    """Services, guests, networks, switch, libvirtd, in this order; says what it stops and what is left."""
    _step("services", lambda: _stop_node(config))
    _step("servers", lambda: _stop_guests(config, 0.0 if now else GUEST_SECONDS))
    _step("networks", lambda: _remove_networks(config))
    for name in ("libvirtd", "ovs-vswitchd", "ovsdb-server"):
        _step(name, lambda name=name: process.terminate(str(parts.pid_file(config, name)), parts.marker(config)))  # type: ignore[misc]
    shutil.rmtree(config.run, ignore_errors=True)
    found = leftovers(config)
    for thing in found:
        print(f"  left behind: {thing}", file=sys.stderr)
    return 1 if found else 0


def _step(name: str, work: Callable[[], object]) -> None:
    print(f"  {name:<28}", end="", flush=True)
    work()
    print("stopped", flush=True)


def _stop_node(config: Config) -> None:
    if SYSTEMD.exists() and (Path("/etc/systemd/system") / UNIT).exists():
        subprocess.run(["systemctl", "disable", "--now", "--quiet", UNIT], check=False)
    found = status.node(config)
    if not found:
        return
    os.kill(found["pid"], signal.SIGTERM)
    deadline = time.monotonic() + NODE_SECONDS
    while status.running(config):
        if time.monotonic() > deadline:
            sys.exit(f"the node's parent (pid {found['pid']}) does not end")
        time.sleep(0.02)


def _stop_guests(config: Config, seconds: float) -> None:
    """Shut all guests down at once; switch off those that are still on when the time is up."""
    if process.find(str(parts.pid_file(config, "libvirtd")), parts.marker(config)) is None:
        if not list((config.run / "libvirt").rglob("*.pid")):
            return
        process.start(
            libvirtd.argv(config.state, config.run),
            str(parts.pid_file(config, "libvirtd")),
            log_path=str(config.logs / "libvirtd.log"),
        )
    from cumulet.nova.compute.guests import stop_all

    stop_all(config, seconds)


def _remove_networks(config: Config) -> None:
    from cumulet.neutron.dhcp import driver as dhcp
    from cumulet.neutron.l2 import uplink
    from cumulet.neutron.l3 import driver as l3
    from cumulet.nova.compute import guests

    try:
        guests.remove_taps(config)
    except Retry as reason:
        print(f"({reason}) ", end="")
    l3.remove_all(config)
    dhcp.remove_all(config)
    uplink.remove_all(config)
