"""What a node of a cloud is given: its configuration, the secrets that it may have, on controllers the topology.

A parcel is files of the configuration's directory, by name.  It is made on a controller; a secret is in the parcel
of a node that needs it and nowhere else.
"""

from pathlib import Path

import msgspec

from cumulet.core import secrets, topology
from cumulet.core.errors import NotFound
from cumulet.core.topology import Node, Topology

METADATA = "neutron-metadata-agent"
CONFIG, SECRETS, TOPOLOGY, KEYS = "cumulet.toml", "secrets.json", "cloud.toml", "credential-keys"


class Parcel(msgspec.Struct, frozen=True):
    node: str
    files: dict[str, str]

    def __repr__(self) -> str:
        return f"Parcel({self.node!r}, {sorted(self.files)})"


def make(found: Topology, text: str, node: Node, etc: Path | None) -> Parcel:
    """The node's parcel, with secrets out of a controller's ``etc``; without them for the one that makes them."""
    files = {CONFIG: topology.render(topology.node_config(found, node))}
    controls = topology.controls(node)
    if controls:
        files[TOPOLOGY] = text
    if etc:
        known = _known(etc)
        own = known if controls else secrets.host_secrets(known, node.name, topology.runs(node, METADATA))
        files[SECRETS] = msgspec.json.encode(own).decode()
        if controls:
            files |= {f"{KEYS}/{file.name}": file.read_text() for file in sorted((etc / KEYS).glob("[0-9]*"))}
    return Parcel(node.name, files)


def _known(etc: Path) -> secrets.Secrets:
    try:
        return secrets.load(etc)
    except FileNotFoundError as error:
        raise NotFound(f"{secrets.path(etc)} is missing: this node is no controller, or was never up") from error
    except msgspec.ValidationError as error:
        raise NotFound(f"{secrets.path(etc)} is not a controller's") from error
