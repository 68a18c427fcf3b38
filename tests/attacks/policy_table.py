"""Every caller, every route, and a table of who may do what that is worked out from the rules' texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cumulet.core.db import Database, Transaction
from cumulet.core.errors import ApiError
from cumulet.core.http import Route
from cumulet.core.policy import AUTHENTICATED, HOST, PUBLIC
from tests.attacks.bodies import smallest
from tests.attacks.doors import PASSWORD, Doors
from tests.attacks.rules import Asked
from tests.attacks.street import Street

FRONTS = {"keystone": "keystone", "glance-api": "glance", "neutron-server": "neutron", "nova-api": "nova"}
"""The services that users may call, and the projects whose rules they keep."""


class WouldWrite(ApiError):
    """Stands where a change would have been: the caller was let in."""

    status, title = 418, "Would Write"


class StillDatabase(Database):
    still = False

    def before_commit(self, tx: Transaction) -> None:
        if self.still and tx.wrote:
            raise WouldWrite("this would have been written")


@dataclass(frozen=True)
class Person:
    """Whoever has a role has those that it implies.  Without a ``project`` the token is of that kind of scope."""

    role: str = ""
    project: str = ""
    scope: str = "project"


ROLES = ("admin", "manager", "member", "reader")
PEOPLE = {
    "nora": Person(scope="unscoped"),
    "rita": Person("reader", "red"),
    "alice": Person("member", "red"),
    "mona": Person("manager", "red"),
    "ria": Person("reader", "blue"),
    "bob": Person("member", "blue"),
    "max": Person("manager", "blue"),
    "ada": Person("admin", "blue"),
    "admin": Person("admin", "admin"),
    "sira": Person("reader", scope="system"),
    "sam": Person("admin", scope="system"),
    "dora": Person("reader", scope="domain"),
    "dan": Person("manager", scope="domain"),
    "serge": Person("service", "service"),
}
"""Red is Alice's project, and all that the URLs name is hers."""


class Table:
    """A street that stands still, its people, and what each may do there."""

    def __init__(self, place: Path, database: type[StillDatabase] = StillDatabase) -> None:
        self.street = Street(place, database)
        self.doors: Doors = self.street.doors
        self.ids = self.doors.ids
        self.projects = {"red": self.ids["red"], "blue": self.ids["blue"]}
        for project in ("admin", "service"):
            found = self.doors.good("admin", "keystone", "GET", f"/v3/projects?name={project}")["projects"]
            self.projects[project] = self.ids[project] = found[0]["id"]
        for name, person in PEOPLE.items():
            if name not in self.doors.tokens:
                self._add(name, person)
        for name in ("admin", "nora"):
            self.ids[name] = self.doors.env.authenticate(self.doors.tokens[name]).user_id
        self.street.values |= {
            "trustee_user_id": self.ids["bob"],
            "floating_network_id": self._public(),
            **self._things(),
        }
        for app, method, url, body in self._more():
            self.doors.good("admin", app, method, url, body)
        self.street.values |= self._found()
        self.blue_network, self.blue_subnet = self.doors.network("bob", "10.9.0.0/24")
        assert isinstance(self.doors.db, StillDatabase)
        self.doors.db.still = True

    def _add(self, name: str, person: Person) -> None:
        doors = self.doors
        if person.scope == "project":
            doors.add_person(name, person.project, person.role)
            return
        doors.ids[name] = doors.make("keystone", "admin", "/v3/users", "user", name=name, password="p")["id"]
        where = "system" if person.scope == "system" else "domains/default"
        url = f"/v3/{where}/users/{doors.ids[name]}/roles/{doors.role(person.role)}"
        doors.good("admin", "keystone", "PUT", url)
        scope = {"system": {"all": True}} if person.scope == "system" else {"domain": {"id": "default"}}
        user = {"name": name, "domain": {"id": "default"}, "password": "p"}
        auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
        status, data, headers = doors.apps["keystone"].call("POST", "/v3/auth/tokens", {"auth": auth})
        assert status == 201, data
        doors.tokens[name] = headers["X-Subject-Token"]

    def _things(self) -> dict[str, str]:
        """Of Alice, behind the names that no other test needs."""

        def make(who: str, url: str, kind: str, **values: Any) -> dict[str, Any]:
            return dict(self.doors.make("keystone", who, url, kind, **values))

        alice, red = self.ids["alice"], self.ids["red"]
        rules = [{"service": "compute", "method": "GET", "path": "/"}]
        robot = make(
            "alice", f"/v3/users/{alice}/application_credentials", "application_credential",
            name="robot", access_rules=rules,
        )  # fmt: skip
        keys = self.doors.good(
            "alice", "keystone", "POST", f"/v3/users/{alice}/credentials/OS-EC2", {"tenant_id": red}
        )
        trust = make(
            "alice", "/v3/OS-TRUST/trusts", "trust", trustor_user_id=alice, trustee_user_id=self.ids["bob"],
            project_id=red, impersonation=False, roles=[{"name": "member"}],
        )  # fmt: skip
        make("alice", f"/v3/users/{alice}/application_credentials", "application_credential",
             name="other", access_rules=[{**rules[0], "path": "/unused"}])  # fmt: skip
        listed = self.doors.good("alice", "keystone", "GET", f"/v3/users/{alice}/access_rules")["access_rules"]
        unused = next(rule["id"] for rule in listed if rule["path"] == "/unused")
        for each in self.doors.good(
            "alice", "keystone", "GET", f"/v3/users/{alice}/application_credentials?name=other"
        )["application_credentials"]:
            self.doors.good(
                "alice", "keystone", "DELETE", f"/v3/users/{alice}/application_credentials/{each['id']}"
            )
        service = self.street.values["service_id"]
        wishes = [{"service_id": service, "resource_name": name, "default_limit": 1} for name in ("used", "free")]
        registered = self.doors.good(
            "admin", "keystone", "POST", "/v3/registered_limits", {"registered_limits": wishes}
        )
        used, free = (
            {"service_id": service, "resource_name": name, "resource_limit": 1, "project_id": red}
            for name in ("used", "free")
        )
        limits = self.doors.good("admin", "keystone", "POST", "/v3/limits", {"limits": [used]})
        self.new_limits = [free]
        return {
            "registered_limit_id": registered["registered_limits"][1]["id"],
            "limit_id": limits["limits"][0]["id"],
            "application_credential_id": robot["id"],
            "access_rule_id": unused,
            "credential_id": make("alice", "/v3/credentials", "credential", type="totp", blob="x")["id"],
            "access": keys["credential"]["access"],
            "trust_id": trust["id"],
            "policy_id": make("admin", "/v3/policies", "policy", type="x", blob="x")["id"],
        }

    def _public(self) -> str:
        found = self.doors.good("admin", "neutron-server", "GET", "/v2.0/networks?router:external=True")
        return str(found["networks"][0]["id"])

    def _more(self) -> list[tuple[str, str, str, Any]]:
        """What the admin does so that every route of a tag, a member, a grant finds one."""
        v, flavor, server = self.street.values, self.ids["flavor"], self.street.server
        people = (f"users/{v['user_id']}", f"groups/{v['group_id']}")
        places = ("/v3/system", *(f"/v3/{p}" for p in (f"projects/{v['project_id']}", "domains/default")))
        inherited = (f"/v3/OS-INHERIT/{p}" for p in (f"projects/{v['project_id']}", "domains/default"))
        grants = [f"{place}/{who}/roles/{v['role_id']}" for place in places for who in people]
        grants += [f"{p}/{who}/roles/{v['role_id']}/inherited_to_projects" for p in inherited for who in people]
        gateway = {"router": {"external_gateway_info": {"network_id": v["floating_network_id"]}}}
        router = f"/v2.0/routers/{v['router_id']}"
        name = v["name"]
        definitions = {
            "namespace": "x",
            "owner": v["project_id"],
            "objects": [{"name": name}],
            "properties": {name: {"title": "t", "type": "string"}},
            "tags": [{"name": name}],
            "resource_type_associations": [{"name": name}],
        }
        return [
            ("glance-api", "POST", "/v2/metadefs/namespaces", definitions),
            *(("keystone", "PUT", url, None) for url in grants),
            ("keystone", "PUT", f"/v3/groups/{v['group_id']}/users/{v['user_id']}", None),
            ("keystone", "PUT", f"/v3/projects/{v['project_id']}/tags/x", None),
            ("neutron-server", "PUT", f"/v2.0/networks/{v['network_id']}/tags/x", None),
            ("neutron-server", "PUT", router, gateway),
            ("neutron-server", "PUT", f"{router}/add_router_interface", {"subnet_id": v["subnet_id"]}),
            ("glance-api", "PUT", f"/v2/images/{v['image_id']}/tags/x", None),
            ("glance-api", "POST", f"/v2/images/{v['image_id']}/members", {"member": self.ids["service"]}),
            ("nova-api", "PUT", f"/v2.1/servers/{server}/tags/x", None),
            ("nova-api", "PUT", f"/v2.1/servers/{server}/metadata/k", {"meta": {"k": "v"}}),
            ("nova-api", "POST", f"/v2.1/flavors/{flavor}/os-extra_specs", {"extra_specs": {"k": "v"}}),
        ]

    def _found(self) -> dict[str, str]:
        url = f"/v2.1/servers/{self.street.server}/os-instance-actions"
        actions = self.doors.good("alice", "nova-api", "GET", url)["instanceActions"]
        return {"request_id": actions[0]["request_id"], "member_id": self.ids["service"]}

    # ── the table's side ─────────────────────────────────────────────────────────────────────────────────────

    def facts(self, name: str) -> dict[str, Any]:
        """The caller, by the names that rules have for them."""
        person = PEOPLE[name]
        chain = ROLES[ROLES.index(person.role) :] if person.role in ROLES else (person.role,)
        project = self.projects.get(person.project, "")
        return {
            "roles": set(chain),
            "user_id": self.ids[name],
            "project_id": project,
            "tenant_id": project,
            "tenant": project,
            "domain_id": "default" if person.scope == "domain" else "",
            "token.domain.id": "default" if person.scope == "domain" else "",
            "token.project.domain.id": "default" if project else "",
            "system_scope": "all" if person.scope == "system" else "",
        }

    def target(self, name: str, app: str, route: Route) -> dict[str, Any]:
        """What the URL names; a collection's target is a thing of the caller's own."""
        mine = self.facts(name)
        red, alice = self.ids["red"], self.ids["alice"]
        hers = "{" in route.path and not any(part in route.path for part in NOBODYS)
        project = red if hers else mine["project_id"] or None
        user = alice if hers else mine["user_id"]
        found = {"project_id": project, "tenant_id": project, "user_id": user}
        found |= {"network:project_id": project, "security_group:project_id": project}
        if app == "glance-api":
            return {**found, "owner": project, "member_id": None if hers else project, "visibility": "private"}
        if app == "keystone":
            return {**found, **self._identity_target(name, route, user, project)}
        return found

    def _identity_target(self, name: str, route: Route, user: str, project: str | None) -> dict[str, Any]:
        home = "default" if self.facts(name)["domain_id"] or route.method != "GET" else None
        named = {part[1:-1] for part in route.path.split("/") if part.startswith("{")}
        return {
            "target.token.user_id": self.ids["alice"],
            "target.user.id": user,
            "target.credential.user_id": user,
            "target.trust.trustor_user_id": user,
            "target.trust.trustee_user_id": self.ids["bob"] if "trust_id" in named else user,
            "target.user.domain_id": "default" if "user_id" in named else home,
            "target.group.domain_id": "default" if "group_id" in named else home,
            "target.project.id": project,
            "target.project.domain_id": "default" if "project_id" in named else home,
            "target.domain.id": "default",
            "target.domain_id": home,
            "target.limit.project_id": project,
            "target.limit.project.domain_id": "default" if "limit_id" in named else home,
            "target.role.name": "member",
            "target.role.domain_id": None,
        }

    # ── the cloud's side ─────────────────────────────────────────────────────────────────────────────────────

    def knock(self, name: str, app: str, route: Route) -> tuple[int, Any]:
        headers = {"X_Subject_Token": self.doors.tokens["alice"]} if route.path == "/v3/auth/tokens" else {}
        if "/file" in route.path or "/stage" in route.path:
            headers["Content_Type"] = "application/octet-stream"
        if route.method == "PATCH" and app == "glance-api":
            headers["Content_Type"] = "application/openstack-images-v2.1-json-patch"
        return self.street.knock(name, app, route, self._body(name, app, route), **headers)

    def _body(self, name: str, app: str, route: Route) -> bytes:
        values = dict(self.street.values)
        if name in PEOPLE and PEOPLE[name].project == "blue" and "{" not in route.path:
            values |= {"network_id": self.blue_network, "subnet_id": self.blue_subnet}
        values |= {"user_id": self.ids[name], "trustor_user_id": self.ids[name]}
        known = BODIES.get((app, f"{route.method} {route.path} {route.action}".strip()))
        if route.path == "/v3/limits":
            values["limits"] = self.new_limits
        if route.path == "/v3/OS-TRUST/trusts":
            values["roles"] = [{"name": "reader"}]
        if route.path.endswith("/credentials/OS-EC2"):
            values["tenant_id"] = self.ids["red"]
        if known is not None:
            return msgspec.json.encode(known)
        if route.body is None:
            return b'{"ACTION": null}' if route.action else b""
        return msgspec.json.encode(smallest(route.body, values))

    def differences(self, texts: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Where the cloud does not answer as the rules' ``texts`` have it, by project."""
        found = []
        for app, route in self.routes():
            best = self.knock("admin", app, route)[0]
            for name in PEOPLE:
                asked = Asked(texts[FRONTS[app]], self.facts(name), self.target(name, app, route))
                rule = RULES.get((app, f"{route.method} {route.path}"), route.policy)
                allowed = rule == AUTHENTICATED or asked.allows(rule)
                status, data = self.knock(name, app, route)
                if not agrees(name, app, route, allowed, status, best):
                    line = f"{name} {'may' if allowed else 'may not'} {route.method} {route.path} {route.action}"
                    found.append(f"{app}: {line} ({rule}), but got {status} {str(data)[:200]}")
        return found

    def routes(self) -> list[tuple[str, Route]]:
        return [
            (app, route)
            for app, route in self.doors.routes()
            if app in FRONTS and route.policy not in (PUBLIC, HOST) and not route.path.startswith(PROXIED)
        ]


def agrees(name: str, app: str, route: Route, allowed: bool, status: int, best: int) -> bool:
    """Refused is 403, or 404 for what one may not even see.  ``best``: the administrator's answer."""
    line = (app, f"{route.method} {route.path} {route.action}".strip())
    if not allowed:
        return status in (403, 404) or status == best == 400
    if status == 404:
        return best == 404 or line in NOT_THERE
    return status not in (401, 403) or (line in BEYOND and BEYOND[line] in ("", name))


PROXIED = (
    "/v2.1/images", "/v2.1/os-floating-ip", "/v2.1/os-networks", "/v2.1/os-security-group",
    "/v2.1/os-tenant-networks",
)  # fmt: skip
"""What one API takes from another goes by the other's rules, which are asked about there."""
NOBODYS = ("/flavors", "/extensions/", "/os-keypairs/", "/agents/", "/v3/roles/{", "/regions/", "/os-hypervisors/")
"""Parts of URLs whose things are nobody's, or the caller's own."""
RULES = {
    ("keystone", "GET /v3/OS-TRUST/trusts"): "identity:list_trusts",
    **{
        ("neutron-server", f"{method} /v2.0/{{collection}}/{{id}}/tags{one}"): f"{verb}_network:tags"
        for one, method, verb in (
            ("", "GET", "get"), ("", "PUT", "update"), ("", "POST", "create"), ("", "DELETE", "delete"),
            ("/{tag}", "GET", "get"), ("/{tag}", "PUT", "update"), ("/{tag}", "DELETE", "delete"),
        )
    },
}  # fmt: skip
"""Where the rule that counts depends on what is asked for."""
BODIES: dict[tuple[str, str], Any] = {
    ("glance-api", "POST /v2/metadefs/namespaces/{namespace}/tags"): {"tags": [{"name": "z"}]},
    ("glance-api", "PUT /v2/images/{image_id}/members/{member_id}"): {"status": "accepted"},
    ("keystone", "POST /v3/users/{user_id}/password"): {
        "user": {"password": "another", "original_password": PASSWORD}
    },
    ("glance-api", "POST /v2/metadefs/namespaces/{namespace}/properties"): {
        "name": "new",
        "title": "t",
        "type": "string",
    },
    ("glance-api", "PUT /v2/metadefs/namespaces/{namespace}/properties/{name}"): {
        "name": "new",
        "title": "t",
        "type": "string",
    },
    ("keystone", "PATCH /v3/limits/{limit_id}"): {"limit": {"resource_limit": 2}},
    ("keystone", "POST /v3/roles"): {"role": {"name": "y"}},
    ("keystone", "POST /v3/credentials"): {"credential": {"type": "totp", "blob": "y"}},
    ("glance-api", "PATCH /v2/images/{image_id}"): [{"op": "replace", "path": "/name", "value": "other"}],
    ("glance-api", "POST /v2/images/{image_id}/import"): {"method": {"name": "glance-direct"}},
    ("neutron-server", "POST /v2.0/networks"): {"network": {}},
    ("neutron-server", "POST /v2.0/routers"): {"router": {}},
    ("neutron-server", "POST /v2.0/security-groups"): {"security_group": {"name": "y"}},
    ("neutron-server", "POST /v2.0/subnetpools"): {"subnetpool": {"name": "y", "prefixes": ["10.99.0.0/16"]}},
    ("neutron-server", "POST /v2.0/address-scopes"): {"address_scope": {"ip_version": 4}},
    ("neutron-server", "POST /v2.0/default-security-group-rules"): {
        "default_security_group_rule": {"direction": "ingress"}
    },
    ("nova-api", "POST /v2.1/os-server-external-events"): {
        "events": [{"name": "network-changed", "server_uuid": "00000000-0000-0000-0000-000000000000"}]
    },
    ("nova-api", "POST /v2.1/os-server-groups"): {"server_group": {"name": "x", "policy": "affinity"}},
    ("nova-api", "PUT /v2.1/servers/{id}/metadata/{key}"): {"meta": {"k": "w"}},
    ("nova-api", "POST /v2.1/servers/{id}/action migrate"): {"migrate": None},
    ("nova-api", "POST /v2.1/servers/{id}/action os-migrateLive"): {
        "os-migrateLive": {"host": None, "block_migration": "auto"}
    },
    ("nova-api", "POST /v2.1/servers/{id}/action reboot"): {"reboot": {"type": "SOFT"}},
    ("nova-api", "POST /v2.1/servers/{id}/remote-consoles"): {
        "remote_console": {"protocol": "vnc", "type": "novnc"}
    },
    ("nova-api", "POST /v2.1/servers/{id}/action os-getVNCConsole"): {"os-getVNCConsole": {"type": "novnc"}},
}
NOT_THERE = {
    ("keystone", "POST /v3/OS-TRUST/trusts"),  # who has no role in Alice's project has none to lend
    ("nova-api", "GET /v2.1/os-keypairs/{name}"),
    ("nova-api", "DELETE /v2.1/os-keypairs/{name}"),
}
"""Routes that look among the caller's own.  What even the administrator misses is not on the street."""
BEYOND = {
    ("keystone", "GET /v3/auth/catalog"): "nora",  # a token without a scope has no catalogue
    ("keystone", "DELETE /v3/roles/{role_id}"): "",  # immutable
    ("keystone", "DELETE /v3/regions/{region_id}"): "",  # has endpoints
    ("keystone", "DELETE /v3/domains/{domain_id}"): "",  # enabled
    ("neutron-server", "GET /v2.0/quotas"): "",  # of all projects: administrators only, as upstream has it in code
    **{
        (
            "neutron-server",
            f"GET /v2.0/quotas/{{project_id}}{which}",
        ): ""  # of others; who reads their own is let in
        for which in ("", "/default", "/details", "/details.json")
    },
    ("nova-api", "POST /v2.1/servers"): "sam",  # a server needs a project
    ("nova-api", "POST /v2.1/os-server-groups"): "sam",
}
"""Routes that refuse by more than a rule: whom, or everybody."""
