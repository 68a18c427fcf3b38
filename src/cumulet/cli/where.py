"""``cumulet where``: the map of what runs, and whether it is healthy."""

import argparse
import sys

import msgspec

from cumulet.cli import status
from cumulet.core import config as configuration
from cumulet.core.config import Config


def main(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    status.require_root("where", "services answer root on their status sockets")
    found = status.healths(config)
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")
    elif not status.running(config):
        sys.exit(status.down(config))
    else:
        print(table(config, found))
    return 0 if all(line.healthy for line in found) else 1


def table(config: Config, found: list[status.Health]) -> str:
    """The map as text: node by role, one service a line."""
    lines = [f"node {config.node.name}"]
    for role in ("controller", "network", "compute", "part"):
        members = [line for line in found if line.role == role]
        if not members:
            continue
        lines.append(f"  {'parts' if role == 'part' else role}")
        for line in members:
            mark = "up" if line.healthy else "DOWN"
            about = [f"pid {line.pid}" if line.pid else "", line.address, line.problem]
            if line.starts > 1:
                about.append(f"started {line.starts} times")
            lines.append(f"    {line.name:<28}{mark:<6}{'  '.join(filter(None, about))}".rstrip())
    return "\n".join(lines)
