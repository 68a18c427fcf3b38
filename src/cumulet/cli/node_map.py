"""What runs on a node, as the map shows it; and the map as text."""

from collections.abc import Iterable

import msgspec

from cumulet.cli.status import Health
from cumulet.core.config import Config
from cumulet.services import ROLES

UP, SICK, MISSING, EXTRA = "up", "sick", "missing", "extra"


class Line(msgspec.Struct):
    """A service on a node.  ``state``: up, sick (it runs badly), missing, extra (not placed there)."""

    name: str
    role: str
    state: str
    about: str = ""


class NodeMap(msgspec.Struct):
    name: str
    address: str
    roles: list[str]
    services: list[Line]


def of_node(config: Config, own: Iterable[Health]) -> NodeMap:
    """This node alone, as its services answer."""
    roles = [role for role in ROLES if any(one.role == role for one in own)]
    return NodeMap(
        config.node.name, config.api.internal_bind, roles, [Line(one.name, one.role, *judge(one)) for one in own]
    )


def table(nodes: Iterable[NodeMap]) -> str:
    lines = []
    for node in nodes:
        lines.append(f"node {node.name}  {', '.join(node.roles)}  {node.address}".rstrip())
        for one in node.services:
            mark = one.state if one.state == UP else one.state.upper()
            lines.append(f"    {one.name:<28}{mark:<9}{one.about}".rstrip())
    return "\n".join(lines)


def judge(health: Health) -> tuple[str, str]:
    """Its state, and what there is to say about it."""
    if health.healthy:
        return UP, "  ".join(filter(None, (f"pid {health.pid}", health.address)))
    return (SICK if health.pid else MISSING), health.problem
