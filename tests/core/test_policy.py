"""The rule language, as in policy.yaml."""

import pytest

from cumulet.core.context import Context
from cumulet.core.errors import Forbidden
from cumulet.core.policy import Policies, PolicyError

MEMBER = Context(user_id="u1", project_id="p1", roles=frozenset({"member", "reader"}))
ADMIN = Context(user_id="root", project_id="p9", roles=frozenset({"admin"}))
MINE, THEIRS = {"project_id": "p1", "user_id": "u1"}, {"project_id": "p2", "user_id": "u2"}


@pytest.mark.parametrize(
    ("rule", "member_mine", "member_theirs", "admin"),
    [
        ("role:admin", False, False, True),
        ("role:admin or project_id:%(project_id)s", True, False, True),
        ("role:member and project_id:%(project_id)s", True, False, False),
        ("not role:admin", True, True, False),
        ("(role:admin or role:member) and not user_id:%(user_id)s", False, True, True),
        ("@", True, True, True),
        ("!", False, False, False),
        ("", True, True, True),
        ("rule:base", False, False, True),
        ("rule:unknown", False, False, False),
    ],
)
def test_rules(rule: str, member_mine: bool, member_theirs: bool, admin: bool) -> None:
    policies = Policies({"thing": rule, "base": "role:admin"})
    assert policies.allows("thing", MEMBER, MINE) is member_mine
    assert policies.allows("thing", MEMBER, THEIRS) is member_theirs
    assert policies.allows("thing", ADMIN, MINE) is admin


def test_an_unknown_rule_denies() -> None:
    with pytest.raises(Forbidden):
        Policies({}).enforce("thing", ADMIN, MINE)


def test_no_scope_does_not_own_what_nobody_owns() -> None:
    policies = Policies({"thing": "project_id:%(project_id)s"})
    assert not policies.allows("thing", Context(), {"project_id": ""})
    assert not policies.allows("thing", Context(), {})


def test_overrides_replace_and_misspelled_ones_are_refused() -> None:
    assert Policies({"thing": "!"}, {"thing": "@"}).allows("thing", MEMBER, MINE)
    with pytest.raises(PolicyError, match="thong"):
        Policies({"thing": "!"}, {"thong": "@"})


@pytest.mark.parametrize("rule", ["role:a and", "(role:a", "role:a role:b", "nonsense"])
def test_a_rule_that_cannot_be_read_is_refused_at_load(rule: str) -> None:
    with pytest.raises(PolicyError, match="thing"):
        Policies({"thing": rule})
