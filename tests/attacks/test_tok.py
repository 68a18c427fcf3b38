"""Attacks on tokens (families TOK-1, 2, 3, 5 and 6)."""

import base64
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cumulet.core.context import Context
from cumulet.keystone import keys, token_format
from cumulet.keystone.model import Payload, Scope
from cumulet.keystone.tables import assignments, projects, users
from tests.keystone.identity import Json, Keystone, Person, by_password

DENIED = "The request you have made requires authentication."
UUID_TEXT = st.uuids().map(lambda value: value.hex)


@pytest.fixture
def keystone(tmp_path: Path) -> Keystone:
    return Keystone(tmp_path)


# --- TOK-1: a token dies at once with what it stands on


def patch(collection: str, **values: object) -> Callable[[Keystone, Person, str], None]:
    def change(keystone: Keystone, person: Person, project_id: str) -> None:
        key = {"user": person.id, "project": project_id, "domain": "other"}[collection]
        keystone.good("PATCH", f"/{collection}s/{key}", {collection: values})

    return change


def remove_role(keystone: Keystone, person: Person, project_id: str) -> None:
    keystone.grant(person.id, "member", f"projects/{project_id}", "DELETE")


def delete_role(keystone: Keystone, person: Person, project_id: str) -> None:
    with keystone.db.transaction() as tx:
        tx.write(sa.delete(assignments).where(assignments.c.actor_id == person.id))


def delete(collection: str) -> Callable[[Keystone, Person, str], None]:
    def change(keystone: Keystone, person: Person, project_id: str) -> None:
        keystone.good("DELETE", f"/{collection}/{person.id if collection == 'users' else project_id}")

    return change


def change_own_password(keystone: Keystone, person: Person, project_id: str) -> None:
    body = {"user": {"original_password": person.password, "password": "another good one"}}
    assert keystone.call("POST", f"/users/{person.id}/password", body, None)[0] == 204


def disable_and_enable(keystone: Keystone, person: Person, project_id: str) -> None:
    for enabled in (False, True):
        keystone.good("PATCH", f"/users/{person.id}", {"user": {"enabled": enabled}})


def move_home(keystone: Keystone, person: Person, project_id: str) -> None:
    """The user's own domain is disabled, not the project's."""
    with keystone.db.transaction() as tx:
        tx.write(sa.update(projects).where(projects.c.id == project_id).values(domain_id="default"))
    keystone.good("PATCH", "/domains/other", {"domain": {"enabled": False}})


ENDS = {
    "user disabled": patch("user", enabled=False),
    "user disabled and enabled": disable_and_enable,
    "user deleted": delete("users"),
    "password set": patch("user", password="a new password"),
    "password taken away": patch("user", password=None),
    "own password changed": change_own_password,
    "role removed": remove_role,
    "all assignments gone": delete_role,
    "project disabled": patch("project", enabled=False),
    "project deleted": delete("projects"),
    "domain disabled": patch("domain", enabled=False),
    "domain of the user disabled": move_home,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_token_dies_in_one_request_after(keystone: Keystone, end: str) -> None:
    keystone.good("POST", "/domains", {"domain": {"name": "Other", "explicit_domain_id": "other"}})
    ann = keystone.person("ann", "other", blue="member")
    project_id = keystone.project("blue", "other")
    login = by_password("ann", ann.password, "other", project_id=project_id)
    token = keystone.login(login)[2]["X-Subject-Token"]
    child = keystone.rescope(token, project_id=project_id)
    before = keystone.who(token)
    assert before is not None
    assert before.roles == {"member", "reader"}
    ENDS[end](keystone, ann, project_id)
    assert keystone.who(token) is None
    assert keystone.who(child) is None
    assert keystone.call("GET", "/auth/projects", token=token)[0] == 401
    body = {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": "unscoped"}
    assert keystone.login(body)[0] == 401, "a dead token buys no other"


def test_each_ground_counts_by_itself(keystone: Keystone) -> None:
    """Also where no API call has raised the user's revision, and where user and project have two domains."""
    keystone.good("POST", "/domains", {"domain": {"name": "Other", "explicit_domain_id": "other"}})
    project_id = keystone.project("blue", "other")
    ann = keystone.person("ann")
    keystone.grant(ann.id, "member", f"projects/{project_id}")
    token = keystone.token_of(ann, project_id=project_id)
    for table, key in ((users, ann.id), (projects, project_id), (projects, "other"), (projects, "default")):
        for enabled in (False, True):
            with keystone.db.transaction() as tx:
                tx.write(sa.update(table).where(table.c.id == key).values(enabled=enabled))
            assert bool(keystone.who(token)) is enabled, (table.name, key)


def test_logout_kills_the_token_and_its_descendants_but_not_its_parents(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member", red="member")
    login = keystone.token_of(ann, unscoped="yes")
    child = keystone.rescope(login, project="blue")
    grandchild = keystone.rescope(child, project="red")
    sibling = keystone.rescope(login, project="red")
    other = keystone.token_of(ann, project="blue")
    assert keystone.call("DELETE", "/auth/tokens", token=child, X_Subject_Token=child)[0] == 204
    assert [bool(keystone.who(token)) for token in (login, child, grandchild, sibling, other)] == [
        True, False, False, True, True,
    ]  # fmt: skip
    assert keystone.call("DELETE", "/auth/tokens", token=login, X_Subject_Token=login)[0] == 204
    assert [bool(keystone.who(token)) for token in (login, sibling, other)] == [False, False, True]


def test_groups_inheritance_and_inference_end_at_once(keystone: Keystone) -> None:
    ann = keystone.person("ann")
    parent = keystone.project("parent")
    child = keystone.project("child", parent_id=parent)
    group = keystone.good("POST", "/groups", {"group": {"name": "crew"}})["group"]["id"]
    keystone.good("PUT", f"/groups/{group}/users/{ann.id}")
    member = keystone.role("member")
    grant = f"/OS-INHERIT/projects/{parent}/groups/{group}/roles/{member}/inherited_to_projects"
    keystone.good("PUT", grant)
    token = keystone.token_of(ann, project_id=child)
    assert keystone.login(by_password("ann", ann.password, project_id=parent))[0] == 401, "below it, not on it"
    reader = keystone.role("reader")
    keystone.good("DELETE", f"/roles/{member}/implies/{reader}")
    assert (keystone.who(token) or Context()).roles == {"member"}
    keystone.good("DELETE", f"/groups/{group}/users/{ann.id}")
    assert keystone.who(token) is None
    keystone.good("PUT", f"/groups/{group}/users/{ann.id}")
    assert keystone.who(token) is not None
    keystone.good("DELETE", grant)
    assert keystone.who(token) is None


def test_roles_are_those_of_now(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="reader")
    token = keystone.token_of(ann, project="blue")
    keystone.grant(ann.id, "admin", f"projects/{keystone.project('blue')}")
    assert "admin" in (keystone.who(token) or Context()).roles
    keystone.grant(ann.id, "admin", f"projects/{keystone.project('blue')}", "DELETE")
    assert (keystone.who(token) or Context()).roles == {"reader"}


def test_a_user_is_not_a_group_of_the_same_id(keystone: Keystone) -> None:
    ann = keystone.person("ann")
    project_id, role_id = keystone.project("blue"), keystone.role("member")
    with keystone.db.transaction() as tx:
        row = {"actor_type": "group", "actor_id": ann.id, "target_type": "project", "target_id": project_id}
        tx.write(assignments.insert(), {**row, "role_id": role_id, "inherited": False})
    assert keystone.login(by_password("ann", ann.password, project="blue"))[0] == 401


# --- TOK-2: expired, not yet valid, malformed


def sealed(keystone: Keystone, **changes: int) -> str:
    """A token of admin's, sealed with the real keys, with other times."""
    ring = keys.Keyring(keys.directory(keystone.config))
    payload = token_format.unseal(ring, keystone.admin)
    assert payload is not None
    return token_format.seal(ring, msgspec.structs.replace(payload, **changes))


def test_tokens_out_of_their_time(keystone: Keystone) -> None:
    now = int(time.time())
    assert keystone.who(sealed(keystone, issued_at=now - 10, expires_at=now + 10)) is not None
    assert keystone.who(sealed(keystone, issued_at=now - 10, expires_at=now)) is None
    assert keystone.who(sealed(keystone, issued_at=now - 9000, expires_at=now - 1)) is None
    assert keystone.who(sealed(keystone, issued_at=now + 30, expires_at=now + 90)) is not None, "clocks differ"
    assert keystone.who(sealed(keystone, issued_at=now + 3600, expires_at=now + 7200)) is None
    assert keystone.who(sealed(keystone, issued_at=now, expires_at=now - 3600)) is None


@pytest.mark.parametrize(
    "text", ["", " ", "null", "ADMIN", "gAAAA", "gAAAAA" * 40, "é" * 200, "x" * 100_000, "\0" * 200, "=" * 183]
)
def test_malformed_tokens(keystone: Keystone, text: str) -> None:
    status, body, _ = keystone.call("GET", "/users", None, None, X_Auth_Token=text)
    assert (status, body["error"]["message"]) == (401, DENIED)


def test_no_token_at_all(keystone: Keystone) -> None:
    status, body, headers = keystone.call("GET", "/users", token=None)
    assert (status, body["error"]) == (401, {"code": 401, "title": "Unauthorized", "message": DENIED})
    assert headers["WWW-Authenticate"].startswith("Keystone uri=")


def test_what_our_keys_sealed_but_is_no_token(keystone: Keystone) -> None:
    ring = keys.Keyring(keys.directory(keystone.config))
    for data in (b"", b"x", b"\x90", msgspec.msgpack.encode({"user": "admin"}), msgspec.msgpack.encode([9] * 9)):
        assert keystone.who(ring.seal(data)) is None
    stranger = Fernet(Fernet.generate_key())
    assert keystone.who(stranger.encrypt(b"x" * 80).rstrip(b"=").decode()) is None


# --- TOK-3: mutation, and the chain


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    user_id=st.one_of(UUID_TEXT, st.just("default"), st.text("0123456789abcdefXYZ-", min_size=1, max_size=64)),
    kind=st.sampled_from(token_format.KINDS),
    scope_id=st.one_of(UUID_TEXT, st.just(""), st.just("default")),
    methods=st.lists(st.sampled_from(token_format.METHODS), unique=True, min_size=1).map(sorted).map(tuple),
    lifetime=st.integers(1, 10**6),
    audit_ids=st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=32),
    revision=st.integers(1, 2**31),
)
def test_a_token_opens_as_what_was_sealed(
    tmp_path: Path, user_id: str, kind: str, scope_id: str, methods: tuple[str, ...], lifetime: int,
    audit_ids: list[bytes], revision: int,
) -> None:  # fmt: skip
    now = int(time.time())
    texts = tuple(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in audit_ids)
    scope = Scope(kind, scope_id)  # type: ignore[arg-type]
    payload = Payload(user_id, scope, methods, now, now + lifetime, texts, revision)
    text = token_format.seal(_ring(tmp_path), payload)
    assert len(text) < token_format.LONGEST
    assert token_format.unseal(_ring(tmp_path), text) == payload


RINGS: dict[Path, keys.Keyring] = {}


def _ring(place: Path) -> keys.Keyring:
    if place not in RINGS:
        from cumulet.core.config import Config

        config = Config(etc_dir=str(place))
        keys.ensure(config)
        RINGS[place] = keys.Keyring(keys.directory(config))
    return RINGS[place]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_token_is_a_token(tmp_path: Path, data: st.DataObject) -> None:
    """Not one character may change, go or come, not even one that decodes to the same bytes."""
    ring = _ring(tmp_path)
    now = int(time.time())
    payload = Payload("u" * 3, Scope(), ("password",), now, now + 60, (token_format.new_audit_id(),), 1)
    text = token_format.seal(ring, payload)
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 3))
    new = data.draw(st.text("ABCabc019-_=+/ \n%", max_size=3))
    changed = text[:at] + new + text[at + cut :]
    if changed != text:
        assert token_format.unseal(ring, changed) is None


def test_other_texts_of_the_same_bytes_are_refused(keystone: Keystone) -> None:
    token = keystone.admin
    padded = token + "=" * (-len(token) % 4)
    others = {f"{token}=", f"{token}==", f"{token}\n", f" {token}", token.replace("-", "+").replace("_", "/")}
    others |= {token[:-1] + char for char in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"}
    for other in (others | {padded}) - {token}:
        assert keystone.who(other) is None, other


def test_rescoping_renews_nothing_and_ends(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    ring = keys.Keyring(keys.directory(keystone.config))
    opened = token_format.unseal(ring, keystone.token_of(ann, unscoped="yes"))
    assert opened is not None
    opened = msgspec.structs.replace(opened, expires_at=int(time.time()) + 100)
    token = first = token_format.seal(ring, opened)
    for _ in range(31):
        token = keystone.rescope(token, project="blue")
        again = token_format.unseal(ring, token)
        assert again is not None
        assert again.expires_at == opened.expires_at
        assert again.audit_ids[-1] == opened.audit_ids[0]
    body = {"identity": {"methods": ["token"], "token": {"id": token}}}
    assert keystone.login(body)[0] == 401
    assert keystone.call("DELETE", "/auth/tokens", token=first, X_Subject_Token=first)[0] == 204
    assert keystone.who(token) is None


def test_two_methods_must_prove_one_user(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    user = {"name": "ann", "domain": {"id": "default"}, "password": ann.password}
    both = {"methods": ["password", "token"], "password": {"user": user}, "token": {"id": keystone.admin}}
    assert keystone.login({"identity": both})[0] == 401
    both["token"] = {"id": keystone.token_of(ann, unscoped="yes")}
    status, body, _ = keystone.login({"identity": both})
    assert (status, body["token"]["methods"]) == (201, ["password", "token"])
    assert len(body["token"]["audit_ids"]) == 2, "the token that was used is its parent"
    both["password"] = {"user": {**user, "password": "wrong"}}
    assert keystone.login({"identity": both})[0] == 401
    assert keystone.login({"identity": {"methods": [], "token": {"id": keystone.admin}}})[0] == 401
    assert keystone.login({"identity": {"methods": ["external"], "external": {}}})[0] == 401


# --- TOK-5, TOK-6: what a caller says of themselves does not count


def test_bodies_and_queries_do_not_become_policy_targets(keystone: Keystone) -> None:
    ann, bob = keystone.person("ann", blue="member"), keystone.person("bob", blue="member")
    token = keystone.token_of(ann, project="blue")
    claim: Json = {
        "user_id": ann.id, "target": {"user": {"id": ann.id}}, "target.user.id": ann.id, "project_id": "x",
        "domain_id": "default", "target.user.domain_id": "default",
    }  # fmt: skip
    for method, path, body in (
        ("GET", f"/users/{bob.id}", None),
        ("PATCH", f"/users/{bob.id}", {"user": {"name": "mine", **claim}, **claim}),
        ("DELETE", f"/users/{bob.id}", None),
        ("POST", "/users", {"user": {"name": "new", **claim}, **claim}),
        ("GET", f"/users/{bob.id}/projects", None),
        ("GET", "/role_assignments", None),
        ("GET", "/users", None),
    ):
        query = f"?user_id={ann.id}&target.user.id={ann.id}&domain_id=default&user.id={ann.id}"
        status, answer, _ = keystone.call(method, path + query, body, token)
        assert status == 403, (method, path, answer)
    assert keystone.call("GET", f"/users/{ann.id}", token=token)[0] == 200
    unknown = keystone.call("GET", "/users/nobody", token=token)
    assert unknown[:2] == keystone.call("GET", f"/users/{bob.id}", token=token)[:2], "who is there is not told"


def test_attributes_of_ones_own_do_not_shadow_ours(keystone: Keystone) -> None:
    claim = {"id": "chosen", "links": {"self": "http://evil"}, "password_hash": "x", "token_revision": 99}
    body = {"name": "ann", "password": "a good password", "enabled": False, **claim}
    user = keystone.good("POST", "/users", {"user": body})["user"]
    assert user["id"] != "chosen"
    assert user["links"]["self"].endswith(user["id"])
    assert user["password_hash"] == "x", "a word of the client's, nothing else"
    assert "password" not in user
    with keystone.db.read() as tx:
        row = tx.all(sa.select(users).where(users.c.id == user["id"]))[0]
    assert row.token_revision == 1
    assert row.password_hash.startswith("$2b$")


def test_headers_that_speak_for_a_token_are_nothing(keystone: Keystone) -> None:
    admin = keystone.who(keystone.admin) or Context()
    smuggled = {
        "X-User-Id": admin.user_id, "X-User-Name": "admin", "X-Project-Id": admin.project_id, "X-Roles": "admin",
        "X-Role": "admin", "X-Is-Admin-Project": "True", "X-Identity-Status": "Confirmed",
        "X-Service-Roles": "admin", "X-Service-Token": keystone.admin, "X-Forwarded-User": "admin",
        "REMOTE_USER": "admin", "X-Cumulet-Host": "node", "X-Domain-Id": "default",
        "Openstack-System-Scope": "all",
    }  # fmt: skip
    ann = keystone.person("ann", blue="reader")
    token = keystone.token_of(ann, project="blue")
    assert keystone.app.call("GET", "/v3/users", headers=smuggled)[0] == 401
    assert keystone.app.call("GET", "/v3/users", headers={**smuggled, "X-Auth-Token": token})[0] == 403
    assert keystone.app.call("GET", "/v3/users", headers={"X-Auth-Token": "ADMIN"})[0] == 401


def test_links_do_not_follow_the_host_header(keystone: Keystone) -> None:
    headers = {"X-Auth-Token": keystone.admin, "Host": "evil", "X-Forwarded-Host": "evil"}
    assert "evil" not in str(keystone.app.call("GET", "/v3/users", headers=headers)[1])
