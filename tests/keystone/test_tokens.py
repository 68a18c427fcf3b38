"""Logging in, taking another scope, showing, checking and giving back tokens."""

import pytest

from tests.keystone.identity import ADMIN_PASSWORD, Keystone, as_scope, by_password


def test_a_login_gives_a_token_with_everything_a_client_needs(keystone: Keystone) -> None:
    status, body, headers = keystone.login(by_password("admin", ADMIN_PASSWORD, project="admin"))
    assert status == 201
    assert headers["X-Subject-Token"].startswith("gAAAA")
    assert headers["Vary"] == "X-Auth-Token"
    token = body["token"]
    assert token["methods"] == ["password"]
    assert token["user"]["name"] == "admin"
    assert token["user"]["domain"] == {"id": "default", "name": "Default"}
    assert token["user"]["password_expires_at"] is None
    assert token["project"]["name"] == "admin"
    assert token["project"]["domain"] == {"id": "default", "name": "Default"}
    assert token["is_domain"] is False
    assert {role["name"] for role in token["roles"]} == {"admin", "manager", "member", "reader"}
    assert token["expires_at"].endswith(".000000Z")
    assert len(token["audit_ids"]) == 1
    catalog = {service["type"]: service for service in token["catalog"]}
    assert catalog["compute"]["name"] == "nova"
    assert {each["interface"] for each in catalog["compute"]["endpoints"]} == {"public", "internal", "admin"}
    assert set(catalog["compute"]["endpoints"][0]) == {"id", "interface", "region", "region_id", "url"}
    store = catalog["object-store"]["endpoints"][0]["url"]
    assert store == f"http://cloud:8080/v1/AUTH_{token['project']['id']}"


def test_each_kind_of_scope(keystone: Keystone) -> None:
    def scoped(**scope: str) -> dict[str, object]:
        status, body, _ = keystone.login(by_password("admin", ADMIN_PASSWORD, **scope))
        assert status == 201
        return dict(body["token"])

    unscoped = scoped(unscoped="yes")
    assert not {"project", "domain", "system", "roles", "catalog"} & set(unscoped)
    domain = scoped(domain_id="default")
    assert domain["domain"] == {"id": "default", "name": "Default"}
    assert domain["catalog"]
    system = scoped(system="all")
    assert system["system"] == {"all": True}
    assert "project" not in system
    assert scoped()["project"]["name"] == "admin", "the default project, where no scope is named"  # type: ignore[index]


def test_names_and_ids_name_the_same(keystone: Keystone) -> None:
    admin = keystone.good("GET", "/users?name=admin")["users"][0]
    user = {"id": admin["id"], "password": ADMIN_PASSWORD}
    status, body, _ = keystone.login({"identity": {"methods": ["password"], "password": {"user": user}}})
    assert (status, body["token"]["user"]["id"]) == (201, admin["id"])
    by_name = {"name": "admin", "domain": {"name": "Default"}, "password": ADMIN_PASSWORD}
    scope = {"project": {"name": "admin", "domain": {"name": "Default"}}}
    identity = {"methods": ["password"], "password": {"user": by_name}}
    assert keystone.login({"identity": identity, "scope": scope})[0] == 201


def test_without_the_catalogue(keystone: Keystone) -> None:
    body = {"auth": by_password("admin", ADMIN_PASSWORD, project="admin")}
    assert "catalog" not in keystone.call("POST", "/auth/tokens?nocatalog", body, None)[1]["token"]
    headers = {"X_Subject_Token": keystone.admin}
    assert "catalog" not in keystone.call("GET", "/auth/tokens?nocatalog", **headers)[1]["token"]


def test_a_default_project_one_may_not_enter_gives_an_unscoped_token(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    elsewhere = keystone.project("elsewhere")
    keystone.good("PATCH", f"/users/{ann.id}", {"user": {"default_project_id": elsewhere}})
    status, body, _ = keystone.login(by_password("ann", ann.password))
    assert status == 201
    assert "project" not in body["token"]


def test_a_rescoped_token_keeps_expiry_and_chain(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member", red="reader")
    first = keystone.token_of(ann, project="blue")
    second = keystone.rescope(first, project="red")
    shown = [
        keystone.call("GET", "/auth/tokens", token=token, X_Subject_Token=token)[1]["token"]
        for token in (first, second)
    ]
    assert shown[0]["expires_at"] == shown[1]["expires_at"]
    assert shown[1]["methods"] == ["password", "token"]
    assert [role["name"] for role in shown[1]["roles"]] == ["reader"]
    assert shown[1]["audit_ids"][1:] == shown[0]["audit_ids"]


def test_show_check_and_give_back(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    mine = keystone.token_of(ann, project="blue")
    status, body, headers = keystone.call("GET", "/auth/tokens", token=mine, X_Subject_Token=mine)
    assert (status, headers["X-Subject-Token"]) == (200, mine)
    assert body["token"]["project"]["name"] == "blue"
    assert keystone.call("HEAD", "/auth/tokens", token=mine, X_Subject_Token=mine)[:2] == (200, b"")
    assert keystone.call("GET", "/auth/tokens", X_Subject_Token=mine)[0] == 200, "admin may look at any"
    assert keystone.call("DELETE", "/auth/tokens", token=mine, X_Subject_Token=mine)[0] == 204
    assert keystone.call("GET", "/auth/tokens", token=mine, X_Subject_Token=mine)[0] == 401
    status, body, _ = keystone.call("GET", "/auth/tokens", X_Subject_Token=mine)
    assert (status, body["error"]["title"]) == (404, "Not Found")
    assert mine not in str(body)
    assert keystone.call("DELETE", "/auth/tokens", X_Subject_Token=mine)[0] == 404


def test_only_the_holder_admins_and_services_may_look_at_a_token(keystone: Keystone) -> None:
    ann, bob = keystone.person("ann", blue="member"), keystone.person("bob", blue="member")
    keystone.role("service")
    nova = keystone.person("nova", service="service")
    of_ann, of_bob = keystone.token_of(ann, project="blue"), keystone.token_of(bob, project="blue")
    of_nova = keystone.token_of(nova, project="service")
    assert keystone.call("GET", "/auth/tokens", token=of_bob, X_Subject_Token=of_ann)[0] == 403
    assert keystone.call("DELETE", "/auth/tokens", token=of_bob, X_Subject_Token=of_ann)[0] == 403
    assert keystone.call("GET", "/auth/tokens", token=of_nova, X_Subject_Token=of_ann)[0] == 200
    assert keystone.call("DELETE", "/auth/tokens", token=of_nova, X_Subject_Token=of_ann)[0] == 403
    assert keystone.call("GET", "/auth/tokens", token=of_bob, X_Subject_Token="x" * 200)[0] == 403
    assert keystone.call("GET", "/auth/tokens")[0] == 404
    assert keystone.who(of_ann) is not None


@pytest.mark.parametrize(
    "auth",
    [
        {},
        {"identity": {}},
        {"identity": {"methods": "password"}},
        {"identity": {"methods": ["password"]}},
        {"identity": {"methods": ["password"], "password": {"user": {"password": "x"}}}},
        {"identity": {"methods": ["password"], "password": {"user": {"name": "admin", "password": "x"}}}},
        {"identity": {"methods": ["password"], "password": {"user": {"name": "admin", "password": None}}}},
        {"identity": {"methods": ["token"], "token": {}}},
        {**by_password("admin", ADMIN_PASSWORD), "scope": {"project": {"name": "admin"}}},
        {**by_password("admin", ADMIN_PASSWORD), "scope": {"OS-TRUST:trust": {}}},
        {**by_password("admin", ADMIN_PASSWORD), "scope": {"system": {"all": False}}},
        {**by_password("admin", ADMIN_PASSWORD), "scope": {}},
        {**by_password("admin", ADMIN_PASSWORD), "scope": {**as_scope(system="y"), **as_scope(domain_id="y")}},
    ],
)
def test_malformed_logins_are_told_what_is_wrong(keystone: Keystone, auth: dict[str, object]) -> None:
    status, body, _ = keystone.login(auth)
    assert status == 400, body
    assert body["error"]["code"] == 400
    assert body["error"]["title"] == "Bad Request"


@pytest.mark.parametrize(
    "scope", [{"project": "service"}, {"project": "none"}, {"project_id": "x"}, {"domain_id": "x"}, {"system": "y"}]
)
def test_no_token_for_a_scope_without_a_role(keystone: Keystone, scope: dict[str, str]) -> None:
    ann = keystone.person("ann", blue="member")
    status, body, headers = keystone.login(by_password("ann", ann.password, **scope))
    assert (status, body["error"]["message"]) == (401, "The request you have made requires authentication.")
    assert headers["WWW-Authenticate"] == 'Keystone uri="http://127.0.0.1:5000/v3"'


def test_versions_for_anybody(keystone: Keystone) -> None:
    status, body, _ = keystone.app.call("GET", "/")
    (version,) = body["versions"]["values"]
    assert (status, version["id"], version["status"]) == (300, "v3.14", "stable")
    status, body, _ = keystone.app.call("GET", "/v3/")
    assert (status, body["version"]) == (200, version)
    assert version["links"] == [{"rel": "self", "href": "http://127.0.0.1:5000/v3/"}]
    assert keystone.app.call("GET", "/healthcheck")[:2] == (200, b"OK")


def test_revocations_are_swept_when_their_tokens_have_died_of_age(keystone: Keystone) -> None:
    import sqlalchemy as sa

    from cumulet.core.reconcile import Loop
    from cumulet.keystone.tables import revocations

    ann = keystone.person("ann", blue="member")
    mine = keystone.token_of(ann, project="blue")
    assert keystone.call("DELETE", "/auth/tokens", X_Subject_Token=mine)[0] == 204
    sweep = Loop(keystone.service.loops[1])
    sweep.run_once()
    with keystone.db.transaction() as tx:
        assert len(tx.all(sa.select(revocations))) == 1, "its token would still be alive"
        tx.write(sa.update(revocations).values(expires_at=1))
    sweep.resync()
    sweep.run_once()
    with keystone.db.read() as tx:
        assert tx.all(sa.select(revocations)) == []
