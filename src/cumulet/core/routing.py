"""URLs as a tree by their segments: which routes a path leads to, and what its names stand for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Placed(Protocol):
    """What a route has to say of itself."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...


R = TypeVar("R", bound=Placed)


@dataclass
class Node(Generic[R]):
    children: dict[str, "Node[R]"] = field(default_factory=dict)
    any_child: "Node[R] | None" = None
    rest_child: "Node[R] | None" = None
    routes: dict[str, list[R]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)


def tree(routes: Iterable[R]) -> Node[R]:
    """A tree by path segments.  ``{name}`` matches one segment, ``{name:path}`` all that follow."""
    root = Node[R]()
    for route in routes:
        node, names = root, list[str]()
        for part in (part for part in route.path.split("/") if part):
            if part.startswith("{"):
                name, _, kind = part[1:-1].partition(":")
                names.append(name)
                if kind == "path":
                    node.rest_child = node = node.rest_child or Node[R]()
                else:
                    node.any_child = node = node.any_child or Node[R]()
            else:
                node = node.children.setdefault(part, Node[R]())
        node.routes.setdefault(route.method, []).append(route)
        node.names[route.method] = names
    return root


def descend(node: Node[R], parts: Sequence[str]) -> tuple[Node[R] | None, list[str]]:
    """The node of a path and the values of its names; a literal segment goes before a name."""
    if not parts:
        return (node, []) if node.routes else (None, [])
    if parts[0] in node.children:
        found, values = descend(node.children[parts[0]], parts[1:])
        if found:
            return found, values
    if node.any_child:
        found, values = descend(node.any_child, parts[1:])
        if found:
            return found, [parts[0], *values]
    if node.rest_child and node.rest_child.routes:
        return node.rest_child, ["/".join(parts)]
    return None, []
