"""The access rules of an application credential: the few requests that its tokens may make.

Every API asks here, for every request, before its policy.  A path is upstream's pattern: ``*`` and ``{name}``
stand for one segment or a part of one, ``**`` for anything.  Patterns come from users, so they are not made into
regular expressions: the automaton below takes one step per character, whatever the pattern.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from cumulet.core.context import Context
from cumulet.core.errors import Unauthorized

SERVICE_TYPES: dict[str, frozenset[str]] = {
    "keystone": frozenset({"identity"}),
    "glance-api": frozenset({"image"}),
    "neutron-server": frozenset({"network"}),
    "nova-api": frozenset({"compute"}),
    "cinder-api": frozenset({"block-storage", "volumev3"}),
    "heat-api": frozenset({"orchestration"}),
}
"""By the name of the app.  One that is not here serves nobody who is bounded by rules."""
_TOKEN = re.compile(r"(?P<any>\*\*+)|(?P<part>\*|\{[^}]*\})|(?P<letter>.)", re.DOTALL)


class _Automaton(NamedTuple):
    """State n: the first n tokens have been matched.  Each field is a set of states, one bit for each."""

    letters: dict[str, int]  # states that a letter leads on from
    parts: int  # states before a ``*``
    anything: int  # states before a ``**``
    end: int


def check(context: Context, app: str, method: str, path: str) -> None:
    """Unauthorized, as upstream, unless the token may make this request."""
    delegation = context.delegation
    if delegation is None or delegation.rules is None:
        return
    types = SERVICE_TYPES.get(app, frozenset())
    for rule in delegation.rules:
        if rule.service in types and rule.method == method and matches(rule.path, path):
            return
    raise Unauthorized("The request you have made requires authentication.")


def matches(pattern: str, path: str) -> bool:
    letters, parts, anything, end = _compile(pattern)
    states = _skip(1, anything)
    for letter in path:
        onward = (states & letters.get(letter, 0)) << 1
        within = states & parts if letter != "/" else 0
        states = _skip(onward | within | within << 1 | states & anything, anything)
        if not states:
            return False
    return bool(states & end)


def _skip(states: int, anything: int) -> int:
    return states | (states & anything) << 1


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> _Automaton:
    letters: dict[str, int] = {}
    parts = anything = 0
    count = 0
    for count, token in enumerate(_TOKEN.finditer(pattern), 1):
        bit = 1 << (count - 1)
        if token["any"]:
            anything |= bit
        elif token["part"]:
            parts |= bit
        else:
            letters[token["letter"]] = letters.get(token["letter"], 0) | bit
    return _Automaton(letters, parts, anything, 1 << count)
