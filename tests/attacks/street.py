"""A cloud with one thing of everything, and every route with a URL that leads to one of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cumulet.core.db import Database
from cumulet.core.http import Route
from tests.attacks.doors import Doors

PUBLIC = {
    ("keystone", "GET /"), ("keystone", "GET /v3"), ("keystone", "POST /v3/auth/tokens"),
    ("keystone", "POST /v3/users/{user_id}/password"),
    ("glance-api", "GET /"), ("glance-api", "GET /versions"), ("glance-api", "GET /{version}"),
    ("neutron-server", "GET /"), ("neutron-server", "GET /v2.0"),
    ("nova-api", "GET /"), ("nova-api", "GET /v2"), ("nova-api", "GET /v2.1"),
    *((service, f"GET /{page}") for page in ("healthcheck", "openapi.json") for service in (
        "keystone", "glance-api", "glance-registry", "neutron-server", "nova-api", "nova-api-metadata",
        "nova-conductor", "nova-consoleauth")),
}  # fmt: skip
"""What answers without a token.  A password changes, and a token is made, by the proof in the body."""
BY_SIGNATURE = {("nova-api-metadata", f"{line}/{{path:path}}") for line in ("GET ", "POST ")}
BY_SIGNATURE |= {("nova-api-metadata", "GET /"), ("nova-conductor", "POST /join/{id}")}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b"


class Street:
    """The doors, and things of Alice's project behind them for every name that a route's path has."""

    def __init__(self, place: Path, database: type[Database] = Database) -> None:
        self.doors = doors = Doors(place, database=database)
        doors.add_host()
        self.network, self.subnet = doors.network()
        self.server = doors.server(networks=[{"uuid": self.network}])
        doors.run(self.server)
        self.floating = self._floating()
        port = doors.good("alice", "neutron-server", "GET", f"/v2.0/ports?device_id={self.server}")["ports"][0][
            "id"
        ]
        group = doors.make("neutron-server", "alice", "/v2.0/security-groups", "security_group", name="g")
        router = doors.make("neutron-server", "alice", "/v2.0/routers", "router", name="r")["id"]
        scope = doors.make(
            "neutron-server", "alice", "/v2.0/address-scopes", "address_scope", name="s", ip_version=4
        )
        pool = doors.make(
            "neutron-server", "alice", "/v2.0/subnetpools", "subnetpool", name="p", prefixes=["10.9.0.0/16"]
        )
        key = doors.make("nova-api", "alice", "/v2.1/os-keypairs", "keypair", name="k", public_key=KEY)["name"]
        agent = doors.good("admin", "neutron-server", "GET", "/v2.0/agents")["agents"][0]["id"]
        self.values = {
            "host": "h1", "user_id": doors.ids["alice"], "project_id": doors.ids["red"], "domain_id": "default",
            "role_id": doors.role("member"), "prior_role_id": doors.role("member"), "region_id": "RegionOne",
            "implied_role_id": doors.role("reader"), "network_id": self.network, "subnet_id": self.subnet,
            "port_id": port, "router_id": router, "floatingip_id": self.floating, "security_group_id": group["id"],
            "address_scope_id": scope["id"], "subnetpool_id": pool["id"],
            "rule_id": group["security_group_rules"][0]["id"], "image_id": doors.ids["image of alice"],
            "member_id": doors.ids["blue"], "name": key, "agent_id": agent, "tag": "x", "key": "k",
            "alias": "quotas", "binary": "nova-compute", "network": "net", "collection": "networks",
            "version": "v2", "request_id": "req-x", "volume_id": "x", "attempt": "x",
            "path:path": "openstack/latest/meta_data.json",
            **{f"{thing}_id": self._first(thing) for thing in ("service", "endpoint")},
            "group_id": doors.make("keystone", "admin", "/v3/groups", "group", name="crew")["id"],
        }  # fmt: skip

    def _first(self, thing: str) -> str:
        return str(self.doors.good("admin", "keystone", "GET", f"/v3/{thing}s")[f"{thing}s"][0]["id"])

    def _floating(self) -> str:
        public = self.doors.public_network()
        wish = {"floating_network_id": public}
        return str(self.doors.make("neutron-server", "alice", "/v2.0/floatingips", "floatingip", **wish)["id"])

    def named(self, path: str) -> dict[str, str]:
        """What is there for every name in a path."""
        parts = path.split("/")
        things = {"flavors": self.doors.ids["flavor"], "os-quota-sets": self.doors.ids["red"], "v2.0": self.network}
        thing = next((value for name, value in things.items() if name in parts), self.server)
        names = (part[1:-1] for part in parts if part.startswith("{"))
        return {name: thing if name == "id" else self.values.get(name, "x") for name in names}

    def url(self, route: Route) -> str:
        values = self.named(route.path)
        return "/".join(values.get(part[1:-1], part) for part in route.path.split("/"))

    def knock(self, who: str, name: str, route: Route, raw: bytes, **headers: str) -> tuple[int, Any]:
        body = raw.replace(b"ACTION", route.action.encode()) if route.action else raw
        if route.until:  # a route of old microversions
            headers["OpenStack_API_Version"] = f"compute {route.until[0]}.{route.until[1]}"
        status, data, _ = self.doors.call(who, name, route.method, self.url(route), body, **headers)
        return status, data


def routes(street: Street, *methods: str) -> Iterator[tuple[str, str, Route]]:
    for name, route in street.doors.routes():
        if not methods or route.method in methods:
            yield name, f"{route.method} {route.path}", route


def rule_of(street: Street, name: str, route: Route) -> str:
    return street.doors.apps[name].policies.texts.get(route.policy, "")


def body_of(route: Route) -> bytes:
    """What gets an action to its own handler; nothing at all for the others."""
    return f'{{"{route.action}": null}}'.encode() if route.action else b""
