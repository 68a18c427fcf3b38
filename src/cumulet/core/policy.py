"""May this caller do this?  Upstream's rule names, upstream's rule language, compiled to closures at load.

A rule is text as in ``policy.yaml``: ``role:admin or project_id:%(project_id)s``.  Checks: ``role:R``,
``rule:NAME``, ``@`` (anybody), ``!`` (nobody), ``ATTRIBUTE:%(target)s`` and ``ATTRIBUTE:literal`` where the
attribute is one of the caller's (``user_id``, ``project_id``, ``domain_id``, ``system_scope``, ``is_admin``),
``None:%(target)s`` and ``'literal':%(target)s``.
The target comes from the database row or the URL, never from the request's body.  An unknown rule denies.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from cumulet.core.context import Context
from cumulet.core.errors import Forbidden

Target = Mapping[str, Any]
Check = Callable[["Policies", Context, Target], bool]
PUBLIC = "public"
"""A route's policy when anybody may call it, with or without a token."""
AUTHENTICATED = "authenticated"
"""A route's policy when any valid token will do."""
HOST = "host"
"""A route's policy when only an agent with its host token may call it."""

_TOKEN = re.compile(r"(?:%\([^)]*\)s|[^\s()])+|\(|\)")
_REFERENCE = re.compile(r"%\(([\w.:]+)\)s")


class PolicyError(ValueError):
    """A rule that cannot be read; names the rule."""


class Policies:
    """All rules of one project: its defaults, with an operator's overrides in front."""

    def __init__(self, defaults: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> None:
        unknown = set(overrides or {}) - set(defaults)
        if unknown:
            raise PolicyError(f"policy.yaml names rules that do not exist: {', '.join(sorted(unknown))}")
        self.texts = {**defaults, **(overrides or {})}
        self._checks = {name: _check(name, text) for name, text in self.texts.items()}

    def allows(self, rule: str, context: Context, target: Target) -> bool:
        check = self._checks.get(rule)
        return check is not None and check(self, context, target)

    def enforce(self, rule: str, context: Context, target: Target, message: str = "") -> None:
        """Raise Forbidden unless ``rule`` lets ``context`` do this to ``target``."""
        if not self.allows(rule, context, target):
            raise Forbidden(message or f"Policy doesn't allow {rule} to be performed.", kind="PolicyNotAuthorized")


def _check(name: str, text: str) -> Check:
    try:
        return _compile(text)
    except PolicyError as error:
        raise PolicyError(f"{name}: {error}") from None


@cache
def _compile(text: str) -> Check:
    """Many rules have the same text."""
    tokens = _TOKEN.findall(text)
    if not tokens:
        return lambda rules, context, target: True
    check, rest = _parse_or(tokens)
    if rest:
        raise PolicyError(f"cannot read {' '.join(rest)!r} in {text!r}")
    return check


def _parse_or(tokens: list[str]) -> tuple[Check, list[str]]:
    parts = []
    check, tokens = _parse_and(tokens)
    parts.append(check)
    while tokens and tokens[0].lower() == "or":
        check, tokens = _parse_and(tokens[1:])
        parts.append(check)
    if len(parts) == 1:
        return parts[0], tokens
    return lambda rules, context, target: any(part(rules, context, target) for part in parts), tokens


def _parse_and(tokens: list[str]) -> tuple[Check, list[str]]:
    parts = []
    check, tokens = _parse_not(tokens)
    parts.append(check)
    while tokens and tokens[0].lower() == "and":
        check, tokens = _parse_not(tokens[1:])
        parts.append(check)
    if len(parts) == 1:
        return parts[0], tokens
    return lambda rules, context, target: all(part(rules, context, target) for part in parts), tokens


def _parse_not(tokens: list[str]) -> tuple[Check, list[str]]:
    if not tokens:
        raise PolicyError("ends too early")
    if tokens[0].lower() == "not":
        check, rest = _parse_not(tokens[1:])
        return lambda rules, context, target: not check(rules, context, target), rest
    if tokens[0] == "(":
        check, rest = _parse_or(tokens[1:])
        if not rest or rest[0] != ")":
            raise PolicyError("a parenthesis is not closed")
        return check, rest[1:]
    return _atom(tokens[0]), tokens[1:]


def _atom(token: str) -> Check:
    if token in ("@", "!"):
        return lambda rules, context, target: token == "@"
    kind, separator, value = token.partition(":")
    if not separator:
        raise PolicyError(f"not a check: {token!r}")
    if kind == "role":
        role = value.lower()
        return lambda rules, context, target: role in context.roles
    if kind == "rule":
        return lambda rules, context, target: rules.allows(value, context, target)
    if kind == "field":
        return _field(value)
    reference = _REFERENCE.fullmatch(value)
    if reference:
        return _compare_target(kind, reference.group(1))
    if value == "None":
        return lambda rules, context, target: not _attribute(context, kind)
    return lambda rules, context, target: _is(_attribute(context, kind), value)


def _compare_target(kind: str, key: str) -> Check:
    """``project_id:%(project_id)s``, and the literals of keystone's rules: ``None:%(…)s``, ``'member':%(…)s``."""
    if kind == "None":
        return lambda rules, context, target: target.get(key) is None
    if kind[0] == kind[-1] == "'":
        literal = kind[1:-1]
        return lambda rules, context, target: target.get(key) == literal
    return lambda rules, context, target: _is(_attribute(context, kind), target.get(key))


def _field(value: str) -> Check:
    """neutron's ``field:COLLECTION:ATTRIBUTE=VALUE``: an attribute of the target (``=~``: a pattern)."""
    attribute, separator, wanted = value.partition(":")[2].partition("=")
    if not separator:
        raise PolicyError(f"not a check: {value!r}")
    if wanted.startswith("~"):
        pattern = re.compile(wanted[1:])
        return lambda rules, context, target: pattern.match(str(target.get(attribute) or "")) is not None
    return lambda rules, context, target: str(target.get(attribute)) == wanted


def _attribute(context: Context, name: str) -> str:
    if name in ("project_id", "tenant_id", "tenant"):
        return context.project_id
    if name in ("user_id", "user"):
        return context.user_id
    if name == "system_scope":
        return "all" if context.system else ""
    if name == "is_admin":
        return str(context.admin)
    if name in ("domain_id", "token.domain.id"):
        return context.domain_id
    if name == "token.project.domain.id":
        return context.project_domain_id
    return ""


def _is(mine: str, theirs: object) -> bool:
    """Equal, and not by both being empty: no scope is not the owner of ownerless things."""
    return bool(mine) and mine == theirs
