"""``cumulet where``: the map of what runs, and whether it is healthy.

Of this node; on a controller of a cloud that has a topology (``cloud.toml``), of all its nodes.
"""

import argparse
import sys

import msgspec

from cumulet.cli import map_picture, node_map, status
from cumulet.cli.node_map import NodeMap
from cumulet.core import config as configuration
from cumulet.core import topology
from cumulet.core.config import Config


def main(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    status.require_root("where", "services answer root on their status sockets")
    if config.controls and topology.file(config).exists():
        from cumulet.cli import cloud_map

        nodes = cloud_map.look(config, topology.load(topology.file(config)))
        _show(options, nodes, node_map.table(nodes), nodes)
        return 0 if all(line.state == node_map.UP for node in nodes for line in node.services) else 1
    found = status.healths(config)
    if not options.json and not status.running(config):
        sys.exit(status.down(config))
    _show(options, found, table(config, found), [node_map.of_node(config, found)])
    return 0 if all(line.healthy for line in found) else 1


def _show(options: argparse.Namespace, data: object, text: str, nodes: list[NodeMap]) -> None:
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(data), indent=1).decode())
    elif options.svg:
        sys.stdout.write(map_picture.draw(nodes))
    else:
        print(text)


def table(config: Config, found: list[status.Health]) -> str:
    """One node's map as text: by role, one service a line."""
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
