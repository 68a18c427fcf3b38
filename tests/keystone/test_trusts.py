"""Trusts: what one user lends another, and what ends it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.context import Context
from cumulet.core.tables import notifications
from cumulet.keystone.tables import trusts
from tests.keystone.identity import Json, Keystone, Person, by_password


@dataclass
class Deal:
    """Ann, who is member of blue, and Bob, who has no role there."""

    keystone: Keystone
    ann: Person
    bob: Person

    def trust(self, roles: Sequence[Any] = ("member",), **values: Any) -> Json:
        status, body = self.offer(roles, **values)
        assert status == 201, body
        return dict(body["trust"])

    def offer(self, roles: Sequence[Any] = ("member",), token: str = "", **values: Any) -> tuple[int, Any]:
        trust = {
            "trustor_user_id": self.ann.id,
            "trustee_user_id": self.bob.id,
            "project_id": self.keystone.project("blue"),
            "impersonation": True,
            "roles": [{"name": each} if isinstance(each, str) else each for each in roles],
            **values,
        }
        token = token or self.keystone.token_of(self.ann, project="blue")
        return self.keystone.call("POST", "/OS-TRUST/trusts", {"trust": trust}, token)[:2]

    def login(self, trust_id: str, person: Person | None = None) -> tuple[int, Any, str]:
        person = person or self.bob
        body = by_password(person.name, person.password)
        body["scope"] = {"OS-TRUST:trust": {"id": trust_id}}
        status, answer, headers = self.keystone.login(body)
        return status, answer, headers.get("X-Subject-Token", "")

    def token(self, trust: Json) -> str:
        status, body, token = self.login(trust["id"])
        assert status == 201, body
        return token

    def who(self, token: str) -> Context:
        return self.keystone.who(token) or Context()


@pytest.fixture
def deal(keystone: Keystone) -> Deal:
    return Deal(keystone, keystone.person("ann", blue="member"), keystone.person("bob", red="member"))


def test_the_life_of_a_trust(deal: Deal) -> None:
    keystone = deal.keystone
    ann, bob = keystone.token_of(deal.ann, project="blue"), keystone.token_of(deal.bob, project="red")
    made = deal.trust()
    assert [role["name"] for role in made["roles"]] == ["member"]
    assert (made["remaining_uses"], made["expires_at"], made["deleted_at"]) == (None, None, None)
    path = f"/OS-TRUST/trusts/{made['id']}"
    for token in (ann, bob, ""):
        assert keystone.good("GET", path, token=token)["trust"] == made
        roles = keystone.good("GET", f"{path}/roles", token=token)["roles"]
        assert roles == made["roles"]
        assert keystone.good("GET", f"{path}/roles/{roles[0]['id']}", token=token)["role"] == roles[0]
    assert keystone.call("GET", f"{path}/roles/{keystone.role('reader')}", token=ann)[0] == 404
    short = {key: value for key, value in made.items() if key not in ("roles", "roles_links")}
    assert keystone.good("GET", "/OS-TRUST/trusts")["trusts"] == [short]
    mine = f"/OS-TRUST/trusts?trustor_user_id={deal.ann.id}"
    assert keystone.good("GET", mine, token=ann)["trusts"] == [short]
    lent = f"/OS-TRUST/trusts?trustee_user_id={deal.bob.id}"
    assert keystone.good("GET", lent, token=bob)["trusts"] == [short]
    for query in ("/OS-TRUST/trusts", mine):
        assert keystone.call("GET", query, token=bob)[0] == 403
    cid = keystone.token_of(keystone.person("cid", blue="member"), project="blue")
    for method in ("GET", "DELETE"):
        assert keystone.call(method, path, token=cid)[0] == 403
    assert keystone.call("DELETE", path, token=bob)[0] == 403
    assert keystone.call("DELETE", path, token=ann)[0] == 204
    assert keystone.call("GET", path)[0] == 404
    with keystone.db.read() as tx:
        rows = tx.all(sa.select(notifications).order_by(notifications.c.created_at))
    told = [row.event_type for row in rows if "trust" in row.event_type]
    assert told == ["identity.OS-TRUST:trust.created", "identity.OS-TRUST:trust.deleted"]


@pytest.mark.parametrize("impersonation", [True, False])
def test_a_login_by_a_trust(deal: Deal, impersonation: bool) -> None:
    trust = deal.trust(("reader",), impersonation=impersonation)
    status, body, token = deal.login(trust["id"])
    assert status == 201
    document = body["token"]
    actor = deal.ann if impersonation else deal.bob
    assert (document["user"]["id"], document["project"]["name"]) == (actor.id, "blue")
    assert [role["name"] for role in document["roles"]] == ["reader"]
    assert document["OS-TRUST:trust"] == {
        "id": trust["id"],
        "impersonation": impersonation,
        "trustor_user": {"id": deal.ann.id},
        "trustee_user": {"id": deal.bob.id},
    }
    who = deal.who(token)
    assert (who.user_id, who.roles, who.delegation is not None) == (actor.id, frozenset({"reader"}), True)
    shown = deal.keystone.call("GET", "/auth/tokens", token="", X_Subject_Token=token)[1]["token"]
    assert shown["OS-TRUST:trust"]["id"] == trust["id"]
    assert deal.keystone.call("DELETE", "/auth/tokens", X_Subject_Token=token)[0] == 204
    assert deal.keystone.who(token) is None


def test_only_the_trustee_logs_in(deal: Deal) -> None:
    trust = deal.trust()
    for person in (deal.ann, deal.keystone.person("cid", blue="member")):
        assert deal.login(trust["id"], person)[0] == 403
    assert deal.login("0" * 32)[0] == 403
    token = deal.keystone.token_of(deal.bob)
    both = {"OS-TRUST:trust": {"id": trust["id"]}, "project": {"id": deal.keystone.project("red")}}
    body = {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": both}
    assert deal.keystone.login(body)[0] == 400
    body["scope"] = {"OS-TRUST:trust": {"id": trust["id"]}}
    assert deal.keystone.login(body)[0] == 201
    deal.keystone.call("DELETE", "/auth/tokens", X_Subject_Token=token)
    assert deal.keystone.login(body)[0] == 401


def test_what_ends_a_trust_ends_its_tokens(deal: Deal) -> None:
    keystone, ann, bob = deal.keystone, deal.ann, deal.bob
    trust = deal.trust(("member",))
    blue = f"projects/{keystone.project('blue')}"
    token = deal.token(trust)
    for path, off, on in (
        (f"/users/{bob.id}", {"user": {"enabled": False}}, {"user": {"enabled": True}}),
        (f"/users/{ann.id}", {"user": {"enabled": False}}, {"user": {"enabled": True}}),
        (f"/users/{ann.id}", {"user": {"password": "a new password"}}, {"user": {"password": ann.password}}),
    ):
        keystone.good("PATCH", path, off)
        assert keystone.who(token) is None, (path, off)
        keystone.good("PATCH", path, on)
        assert keystone.who(token) is None, "what was given back stays dead"
        token = deal.token(trust)
    keystone.grant(ann.id, "member", blue, "DELETE")
    keystone.grant(ann.id, "reader", blue)
    assert keystone.who(token) is None
    assert deal.login(trust["id"])[0] == 403
    keystone.grant(ann.id, "member", blue)
    assert keystone.who(token) is not None
    with keystone.db.transaction() as tx:
        tx.write(sa.update(trusts).values(expires_at=clock.later(-1)))
    assert keystone.who(token) is None
    assert keystone.call("GET", f"/OS-TRUST/trusts/{trust['id']}")[0] == 404
    other = deal.trust()
    keystone.good("DELETE", f"/users/{bob.id}")
    assert keystone.call("GET", f"/OS-TRUST/trusts/{other['id']}")[0] == 404


def test_a_trust_ends_in_its_time_and_after_its_uses(deal: Deal) -> None:
    end = clock.later(600)
    trust = deal.trust(expires_at=end, remaining_uses=2)
    assert trust["expires_at"] == end
    status, body, first = deal.login(trust["id"])
    assert (status, body["token"]["expires_at"] <= end) == (201, True)
    assert deal.keystone.good("GET", f"/OS-TRUST/trusts/{trust['id']}")["trust"]["remaining_uses"] == 1
    deal.token(trust)
    assert deal.login(trust["id"])[0] == 403
    assert deal.keystone.call("GET", f"/OS-TRUST/trusts/{trust['id']}")[0] == 404
    assert deal.keystone.who(first) is not None
    assert deal.keystone.call("DELETE", f"/OS-TRUST/trusts/{trust['id']}")[0] == 204, "the trustor can still end it"
    assert deal.keystone.who(first) is None


def test_nothing_is_lent_on(deal: Deal) -> None:
    """Neither a trust, nor a key, nor another token comes from a token that was lent."""
    keystone, token = deal.keystone, deal.token(deal.trust())
    blue = keystone.project("blue")
    assert deal.offer(token=token)[0] == 403
    body = {"identity": {"methods": ["token"], "token": {"id": token}}}
    for scope in ({}, {"scope": {"project": {"id": blue}}}, {"scope": "unscoped"}):
        assert keystone.login({**body, **scope})[0] == 403
    credential = {"application_credential": {"name": "robot"}}
    path = f"/users/{deal.ann.id}"
    assert keystone.call("POST", f"{path}/application_credentials", credential, token)[0] == 403
    assert keystone.call("POST", f"{path}/credentials/OS-EC2", {"tenant_id": blue}, token)[0] == 403
    assert keystone.call("GET", f"{path}/credentials/OS-EC2", token=token)[0] == 403
    assert keystone.call("GET", "/credentials", token=token)[0] == 403
    assert keystone.call("GET", f"/OS-TRUST/trusts?trustor_user_id={deal.ann.id}", token=token)[0] == 403
    robot = keystone.good(
        "POST",
        f"{path}/application_credentials",
        {"application_credential": {"name": "robot", "unrestricted": True}},
        keystone.token_of(deal.ann, project="blue"),
    )["application_credential"]
    method = {"id": robot["id"], "secret": robot["secret"]}
    identity = {"methods": ["application_credential"], "application_credential": method}
    status, _, headers = keystone.login({"identity": identity})
    assert status == 201
    assert deal.offer(token=headers["X-Subject-Token"])[0] == 403


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"roles": []}, 403),
        ({"project_id": None}, 403),
        ({"roles": [{"name": "admin"}]}, 404),
        ({"roles": [{"name": "none"}]}, 404),
        ({"roles": [{}]}, 400),
        ({"trustee_user_id": "none"}, 404),
        ({"trustor_user_id": "other"}, 403),
        ({"project_id": "none"}, 404),
        ({"expires_at": "bad.123Z"}, 400),
        ({"expires_at": "2001-01-01T00:00:00Z"}, 400),
        ({"remaining_uses": 0}, 400),
        ({"impersonation": None}, 400),
        ({"allow_redelegation": True}, 403),
        ({"allow_redelegation": True, "redelegation_count": 0}, 201),
    ],
)
def test_trusts_that_are_refused(deal: Deal, values: Json, status: int) -> None:
    assert deal.offer(**values)[0] == status
