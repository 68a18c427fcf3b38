"""A keystone in process, and people who use it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cumulet.core.bus import LocalBus
from cumulet.core.config import Config, Identity
from cumulet.core.context import Context
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database
from cumulet.core.http import App
from cumulet.core.secrets import generate
from cumulet.keystone import app as service
from cumulet.keystone.public import CatalogEntry, bootstrap, build_authenticator
from tests import databases

Json = dict[str, Any]
CATALOG = (
    CatalogEntry("identity", "keystone", "http://cloud:5000/v3"),
    CatalogEntry("compute", "nova", "http://cloud:8774/v2.1"),
    CatalogEntry("object-store", "swift", "http://cloud:8080/v1/AUTH_%(project_id)s"),
)
ADMIN_PASSWORD = "a secret of admin"


@dataclass
class Person:
    id: str
    name: str
    password: str = "a good password"


class Keystone:
    def __init__(self, etc: Path, url: str = "", **identity: int) -> None:
        self.config = Config(identity=Identity(**{"bcrypt_rounds": 4, **identity}), etc_dir=str(etc))
        self.db = Database(url or databases.url(), LocalBus())
        databases.make_tables(self.db.engine)
        self.bootstrap()
        authenticate = build_authenticator(self.config, self.db)
        self.service = service.build(ControllerEnv(self.config, self.db, LocalBus(), generate(), authenticate))
        self.app: App = self.service.app
        self.authenticate = authenticate
        self.admin = self.token("admin", ADMIN_PASSWORD, project="admin")

    def bootstrap(self, password: str = ADMIN_PASSWORD, catalog: tuple[CatalogEntry, ...] = CATALOG) -> None:
        with self.db.transaction() as tx:
            bootstrap(tx, self.config, password, catalog)

    def call(
        self, method: str, path: str, body: Any = None, token: str | None = "", **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        """A request as admin, or with ``token``; None for none."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["X-Auth-Token"] = token or self.admin
        return self.app.call(method, f"/v3{path}", body, named)

    def good(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        status, document, _ = self.call(method, path, body, token)
        assert status < 300, (status, document)
        return document

    def login(self, body: Json) -> tuple[int, Any, Mapping[str, str]]:
        return self.call("POST", "/auth/tokens", {"auth": body}, None)

    def token(self, name: str, password: str, **scope: str) -> str:
        status, document, headers = self.login(by_password(name, password, **scope))
        assert status == 201, document
        return headers["X-Subject-Token"]

    def rescope(self, token: str, **scope: str) -> str:
        body = {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": as_scope(**scope)}
        status, document, headers = self.login(body)
        assert status == 201, document
        return headers["X-Subject-Token"]

    def who(self, token: str) -> Context | None:
        """What the other services see of a token."""
        from cumulet.core.errors import Unauthorized

        try:
            return self.authenticate(token)
        except Unauthorized:
            return None

    def person(self, name: str, domain_id: str = "default", **roles: str) -> Person:
        """A user with a role on each named project of their domain, made where missing."""
        body = {"name": name, "password": "a good password", "domain_id": domain_id}
        person = Person(self.good("POST", "/users", {"user": body})["user"]["id"], name)
        for project, role in roles.items():
            self.grant(person.id, role, f"projects/{self.project(project, domain_id)}")
        return person

    def project(self, name: str, domain_id: str = "default", parent_id: str | None = None) -> str:
        found = self.good("GET", f"/projects?name={name}&domain_id={domain_id}")["projects"]
        body = {"name": name, "domain_id": domain_id, "parent_id": parent_id}
        return str((found or [self.good("POST", "/projects", {"project": body})["project"]])[0]["id"])

    def role(self, name: str) -> str:
        found = self.good("GET", f"/roles?name={name}")["roles"]
        return str((found or [self.good("POST", "/roles", {"role": {"name": name}})["role"]])[0]["id"])

    def grant(self, user_id: str, role: str, target: str, verb: str = "PUT") -> None:
        self.good(verb, f"/{target}/users/{user_id}/roles/{self.role(role)}")

    def token_of(self, person: Person, **scope: str) -> str:
        return self.token(person.name, person.password, **scope)


def by_password(name: str, password: str, domain: str = "default", **scope: str) -> Json:
    user = {"name": name, "domain": {"id": domain}, "password": password}
    body: Json = {"identity": {"methods": ["password"], "password": {"user": user}}}
    return {**body, "scope": as_scope(**scope)} if scope else body


def as_scope(
    project: str = "", project_id: str = "", domain_id: str = "", system: str = "", unscoped: str = ""
) -> Any:
    if project:
        return {"project": {"name": project, "domain": {"id": "default"}}}
    if project_id:
        return {"project": {"id": project_id}}
    if domain_id:
        return {"domain": {"id": domain_id}}
    return {"system": {"all": True}} if system else "unscoped"
