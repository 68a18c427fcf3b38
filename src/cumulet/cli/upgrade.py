"""``cumulet upgrade``: the services of this node exchanged for those of the package as it is now on the disk.

First what may fail without harm: the new code is loaded, and the schema is brought to its newest (it only grows, so
the services that run go on).  Then the node's parent exchanges the services (``succession``), which nobody notices.
"""

import argparse
import os
import signal
import sys
import time

from cumulet.cli import child, prepare, record, status
from cumulet.core import clock
from cumulet.core import config as configuration
from cumulet.core.config import Config

SECONDS = 120.0


def main(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    status.require_running(config, "upgrade", "it exchanges the services of this node")
    for service in config.services:
        child.load(service)
    if config.controls:
        prepare.database(config)
    parent, begun = record.find_parent(config), clock.now()
    assert parent
    os.kill(parent.pid, signal.SIGHUP)
    _wait(config, begun)
    return 0


def _wait(config: Config, begun: str) -> None:
    """Until all services that run were started since; a line for each."""
    deadline, told = time.monotonic() + SECONDS, set[str]()
    while True:
        members = {one.name: one for one in record.members(config).values() if not one.part}
        new = {name for name, one in members.items() if one.started_at > begun}
        for name in sorted(new - told):
            print(f"  {name:<28}exchanged", flush=True)
        told |= new
        if new and new == members.keys() and all(one.healthy for one in status.healths(config) if one.name in new):
            return
        if time.monotonic() > deadline:
            sys.exit(f"not exchanged after {SECONDS:.0f} s: {', '.join(sorted(members.keys() - new)) or 'nothing'}")
        time.sleep(0.05)
