"""May this caller do this?  Upstream's rule names, upstream's rule language, compiled to closures at load.

A rule is text as in ``policy.yaml``: ``role:admin or project_id:%(project_id)s``.  Checks: ``role:R``,
``rule:NAME``, ``@`` (anybody), ``!`` (nobody), ``ATTRIBUTE:%(target)s`` and ``ATTRIBUTE:literal`` where the
attribute is one of the caller's (``user_id``, ``project_id``, ``domain_id``, ``system_scope``, ``is_admin``),
``None:%(target)s`` and ``'literal':%(target)s``.
The target comes from the database row or the URL, never from the request's body.  An unknown rule denies.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from cumulet.core.context import Context
from cumulet.core.errors import Forbidden

Target = Mapping[str, Any]
Check = Callable[[Context, Target], bool]
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
        self._checks = {name: _compile(name, text, self._check_named) for name, text in self.texts.items()}

    def allows(self, rule: str, context: Context, target: Target) -> bool:
        check = self._checks.get(rule)
        return check is not None and check(context, target)

    def enforce(self, rule: str, context: Context, target: Target, message: str = "") -> None:
        """Raise Forbidden unless ``rule`` lets ``context`` do this to ``target``."""
        if not self.allows(rule, context, target):
            raise Forbidden(message or f"Policy doesn't allow {rule} to be performed.", kind="PolicyNotAuthorized")

    def _check_named(self, name: str, context: Context, target: Target) -> bool:
        return self.allows(name, context, target)


def _compile(name: str, text: str, named: Callable[[str, Context, Target], bool]) -> Check:
    tokens = _TOKEN.findall(text)
    if not tokens:
        return lambda context, target: True
    check, rest = _parse_or(name, tokens, named)
    if rest:
        raise PolicyError(f"{name}: cannot read {' '.join(rest)!r} in {text!r}")
    return check


def _parse_or(name: str, tokens: list[str], named: Any) -> tuple[Check, list[str]]:
    parts = []
    check, tokens = _parse_and(name, tokens, named)
    parts.append(check)
    while tokens and tokens[0].lower() == "or":
        check, tokens = _parse_and(name, tokens[1:], named)
        parts.append(check)
    if len(parts) == 1:
        return parts[0], tokens
    return lambda context, target: any(part(context, target) for part in parts), tokens


def _parse_and(name: str, tokens: list[str], named: Any) -> tuple[Check, list[str]]:
    parts = []
    check, tokens = _parse_not(name, tokens, named)
    parts.append(check)
    while tokens and tokens[0].lower() == "and":
        check, tokens = _parse_not(name, tokens[1:], named)
        parts.append(check)
    if len(parts) == 1:
        return parts[0], tokens
    return lambda context, target: all(part(context, target) for part in parts), tokens


def _parse_not(name: str, tokens: list[str], named: Any) -> tuple[Check, list[str]]:
    if not tokens:
        raise PolicyError(f"{name}: ends too early")
    if tokens[0].lower() == "not":
        check, rest = _parse_not(name, tokens[1:], named)
        return lambda context, target: not check(context, target), rest
    if tokens[0] == "(":
        check, rest = _parse_or(name, tokens[1:], named)
        if not rest or rest[0] != ")":
            raise PolicyError(f"{name}: a parenthesis is not closed")
        return check, rest[1:]
    return _atom(name, tokens[0], named), tokens[1:]


def _atom(name: str, token: str, named: Any) -> Check:
    if token in ("@", "!"):
        return lambda context, target: token == "@"
    kind, separator, value = token.partition(":")
    if not separator:
        raise PolicyError(f"{name}: not a check: {token!r}")
    if kind == "role":
        role = value.lower()
        return lambda context, target: role in context.roles
    if kind == "rule":
        return lambda context, target: named(value, context, target)
    if kind == "field":
        return _field(name, value)
    reference = _REFERENCE.fullmatch(value)
    if reference:
        return _compare_target(kind, reference.group(1))
    if value == "None":
        return lambda context, target: not _attribute(context, kind)
    return lambda context, target: _is(_attribute(context, kind), value)


def _compare_target(kind: str, key: str) -> Check:
    """``project_id:%(project_id)s``, and the literals of keystone's rules: ``None:%(…)s``, ``'member':%(…)s``."""
    if kind == "None":
        return lambda context, target: target.get(key) is None
    if kind[0] == kind[-1] == "'":
        literal = kind[1:-1]
        return lambda context, target: target.get(key) == literal
    return lambda context, target: _is(_attribute(context, kind), target.get(key))


def _field(name: str, value: str) -> Check:
    """neutron's ``field:COLLECTION:ATTRIBUTE=VALUE``: an attribute of the target (``=~``: a pattern)."""
    attribute, separator, wanted = value.partition(":")[2].partition("=")
    if not separator:
        raise PolicyError(f"{name}: not a check: {value!r}")
    if wanted.startswith("~"):
        pattern = re.compile(wanted[1:])
        return lambda context, target: pattern.match(str(target.get(attribute) or "")) is not None
    return lambda context, target: str(target.get(attribute)) == wanted


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
