"""What grants work out to.  Pure: dictionaries in, grants out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Graph = Mapping[str, Sequence[str]]


class Assignment(NamedTuple):
    actor_type: str
    actor_id: str
    target_type: str
    target_id: str
    role_id: str
    inherited: bool


class Grant(NamedTuple):
    """Who has which role where, and the assignment that it comes from."""

    shown: Assignment
    source: Assignment


@dataclass(frozen=True)
class Grounds:
    members: Graph  # group → users
    children: Graph  # project or domain → the projects right below it
    implied: Graph  # role → the roles that it implies


def expand(assignments: Iterable[Assignment], grounds: Grounds) -> Iterator[Grant]:
    """Every role of every user on every project, domain and the system, each once."""
    seen: set[tuple[str, ...]] = set()
    for source in assignments:
        for user_id in _users(source, grounds):
            for target_type, target_id in _targets(source, grounds):
                for role_id in (source.role_id, *reached(source.role_id, grounds.implied)):
                    key = (user_id, target_type, target_id, role_id)
                    if key not in seen:
                        seen.add(key)
                        yield Grant(Assignment("user", *key, source.inherited), source)


def reached(start: str, graph: Graph) -> list[str]:
    """What can be reached from ``start``, without it; circles are walked once."""
    found: dict[str, None] = {}
    ahead = list(graph.get(start, ()))
    while ahead:
        each = ahead.pop(0)
        if each not in found and each != start:
            found[each] = None
            ahead += graph.get(each, ())
    return list(found)


def _users(source: Assignment, grounds: Grounds) -> Sequence[str]:
    return [source.actor_id] if source.actor_type == "user" else grounds.members.get(source.actor_id, ())


def _targets(source: Assignment, grounds: Grounds) -> list[tuple[str, str]]:
    if not source.inherited:
        return [(source.target_type, source.target_id)]
    return [("project", project_id) for project_id in reached(source.target_id, grounds.children)]
