"""``cumulet down`` and ``cumulet purge``: stop everything, and leave nothing behind.

Only what carries our mark is touched: domains with our metadata on our own libvirtd, bridges of our own Open
vSwitch, namespaces that our agents wrote down, our nftables tables.  libvirtd and the switch are started once more
where they died, for only they can take away in good order what they made.  A step that fails does not keep the
next ones from being taken; at the end this machine is looked at, and what is left is named.
"""

import argparse
import functools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cumulet.cli import keeper, leftovers, lock, parts, record
from cumulet.core import config as configuration
from cumulet.core.config import Config
from cumulet.core.errors import Retry
from cumulet.host import process
from cumulet.host.nft import NftError
from cumulet.host.ovsdb import OvsdbError

GUEST_SECONDS = 30.0
LIBVIRTD_SECONDS = 20.0
PART_SECONDS = 20.0
TROUBLE = (Retry, OSError, process.ProcessError, OvsdbError, NftError)


def main(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        sys.exit("cumulet down needs root: it ends what root started")
    config = configuration.load(options.config)
    with lock.alone(config, "down"):
        return down(config, options.now)


def purge(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        sys.exit("cumulet purge needs root: it removes what root made")
    config = configuration.load(options.config)
    places = [config.state, config.logs, config.etc]
    if not options.yes:
        print("This removes every server, image, network and account of this cloud for ever:")
        print("\n".join(f"  {place}" for place in places), flush=True)
        if not sys.stdin.isatty():
            sys.exit("nothing was removed: nobody is there to agree; repeat with --yes")
        if input("Type 'purge' to go on: ").strip() != "purge":
            sys.exit("nothing was removed")
    with lock.alone(config, "purge"):
        if code := down(config, now=True):
            sys.exit("nothing was removed: something of the cloud still runs")
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
    print("the data is gone")
    return code


def down(config: Config, now: bool) -> int:
    """Services, guests, networks, switch, libvirtd, in this order; says what it stops and what is left."""
    if not _anything(config):
        shutil.rmtree(config.run, ignore_errors=True)
        print("the cloud is down already")
        return 0
    devices = leftovers.links(config)
    with _step("services"):
        keeper.stop(config)
    devices |= leftovers.links(config)
    with _step("servers"):
        _stop_guests(config, 0.0 if now else GUEST_SECONDS)
    with _step("networks"):
        _remove_networks(config)
    for name in ("libvirtd", "ovs-vswitchd", "ovsdb-server", "rabbitmq", "mariadbd"):
        if parts.pid_file(config, name).exists():
            with _step(name):
                process.terminate(str(parts.pid_file(config, name)), parts.marker(config), PART_SECONDS)
    found = leftovers.leftovers(config, devices)
    for thing in found:
        print(f"  left behind: {thing}", file=sys.stderr)
    if found:
        return 1
    shutil.rmtree(config.run, ignore_errors=True)
    return 0


def _anything(config: Config) -> bool:
    """Whether there is anything to stop or to take away."""
    return bool(
        record.find_keeper(config)
        or record.find_parent(config)
        or leftovers.leftovers(config, leftovers.links(config))
        or any((config.run / "parts").glob("*.pid"))
    )


@contextmanager
def _step(name: str) -> Iterator[None]:
    print(f"  {name:<28}", end="", flush=True)
    try:
        yield
    except TROUBLE as trouble:
        print(f"trouble: {trouble}", flush=True)
    else:
        print("stopped", flush=True)


def _stop_guests(config: Config, seconds: float) -> None:
    """Shut all guests down at once; switch off those that are still on when the time is up."""
    if not list((config.run / "libvirt").rglob("*.pid")):
        return
    from cumulet.nova.compute.guests import stop_all

    parts.ensure(config, "libvirtd")
    try:
        _insist(lambda: stop_all(config, seconds), 5.0)
    except Retry:  # it hangs: its end harms no guest, and the next one finds them
        process.terminate(str(parts.pid_file(config, "libvirtd")), parts.marker(config))
        parts.ensure(config, "libvirtd")
        _insist(lambda: stop_all(config, seconds), LIBVIRTD_SECONDS)


def _insist(work: Callable[[], None], seconds: float) -> None:
    """Again until it succeeds or the time is up: a daemon that was just started does not answer at once."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except (Retry, OvsdbError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _remove_networks(config: Config) -> None:
    from cumulet.neutron.dhcp import driver as dhcp
    from cumulet.neutron.l2 import uplink
    from cumulet.neutron.l3 import driver as l3
    from cumulet.nova.compute import guests

    if (config.state / "openvswitch" / "conf.db").exists():
        for name in ("ovsdb-server", "ovs-vswitchd"):
            parts.ensure(config, name)
    steps: tuple[Callable[[], None], ...] = (
        lambda: _insist(lambda: guests.remove_taps(config), 10.0),
        functools.partial(l3.remove_all, config),
        functools.partial(dhcp.remove_all, config),
        functools.partial(uplink.remove_all, config),
    )
    troubles = []
    for work in steps:
        try:
            work()
        except TROUBLE as trouble:  # the others go all the same
            troubles.append(str(trouble))
    if troubles:
        raise Retry("; ".join(troubles))
