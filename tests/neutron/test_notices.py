"""Every route that changes something tells the world, in upstream's event types."""

from typing import Any

import sqlalchemy as sa

from cumulet.core.tables import notifications
from cumulet.neutron.bindings import DHCP_AGENT, L3_AGENT
from tests.neutron.conftest import Cloud

SILENT = {"/v2.0/quotas/{project_id}"}  # as upstream
MUTATING = ("POST", "PUT", "DELETE")


class Walk:
    """Calls routes one after the other, and remembers which."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.walked = cloud, set[tuple[str, str]]()
        self._told = 0

    def step(self, who: str, method: str, url: str, body: object, *events: str) -> Any:
        """One call that succeeds and tells of ``events``, in this order among others."""
        request_url = f"/v2.0{url}"
        answer = self.cloud.good(who, method, url, body)
        self.walked.add((method, self._route(method, request_url)))
        told = self._new()
        places = [told.index(event) for event in events]
        assert events, (method, url, told)
        assert places == sorted(places), told
        return answer or {}

    def resource(self, who: str, kind: str, url: str, new: object, change: object) -> str:
        """Create a thing of this kind and change it; its id."""
        event = kind.replace("-", "_")
        made = self.step(who, "POST", url, {kind: new}, f"{event}.create.start", f"{event}.create.end")
        key = str(made[kind]["id"])
        if change is not None:
            body = {kind: change}
            self.step(who, "PUT", f"{url}/{key}", body, f"{event}.update.start", f"{event}.update.end")
        return key

    def _route(self, method: str, path: str) -> str:
        parts = path.split("/")
        fitting = [
            route.path
            for route in self.cloud.app.routes
            if route.method == method
            and len(route.path.split("/")) == len(parts)
            and all(a == b or a.startswith("{") for a, b in zip(route.path.split("/"), parts, strict=True))
        ]
        return str(min(fitting, key=lambda found: found.count("{")))

    def _new(self) -> list[str]:
        with self.cloud.db.read() as tx:
            rows = tx.all(sa.select(notifications).order_by(notifications.c.created_at))
        new, self._told = rows[self._told :], len(rows)
        assert all(row.publisher_id == "network.neutron-server" for row in new)
        return [row.event_type for row in new]


def make_all(walk: Walk) -> list[tuple[str, str, str]]:
    """One of each kind, changed once: (who, kind, URL), the newest last."""
    cloud = walk.cloud
    public, _ = cloud.public_network()
    walk._new()
    network = walk.resource("alice", "network", "/networks", {}, {"name": "n"})
    wish = {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"}
    subnet = walk.resource("alice", "subnet", "/subnets", wish, {"name": "s"})
    router = walk.resource("alice", "router", "/routers", {}, {"external_gateway_info": {"network_id": public}})
    walk.step(
        "alice", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet}, "router.interface.create"
    )
    routes = {"router": {"routes": [{"destination": "10.9.0.0/24", "nexthop": "10.0.0.9"}]}}
    for verb in ("add", "remove"):
        url = f"/routers/{router}/{verb}_extraroutes"
        walk.step("alice", "PUT", url, routes, "router.update.start", "router.update.end")
    port = walk.resource("alice", "port", "/ports", {"network_id": network}, {"name": "p"})
    fip = walk.resource("alice", "floatingip", "/floatingips", {"floating_network_id": public}, {"port_id": port})
    group = walk.resource("alice", "security_group", "/security-groups", {"name": "g"}, {"name": "h"})
    template = walk.resource(
        "admin", "default_security_group_rule", "/default-security-group-rules", {"direction": "ingress"}, None
    )
    rule = {"security_group_id": group, "direction": "ingress", "protocol": "tcp"}
    rule_id = walk.resource("alice", "security_group_rule", "/security-group-rules", rule, None)
    walk.step("alice", "DELETE", f"/floatingips/{fip}", None, "floatingip.delete.start", "floatingip.delete.end")
    walk.step(
        "alice",
        "PUT",
        f"/routers/{router}/remove_router_interface",
        {"subnet_id": subnet},
        "router.interface.delete",
    )
    scope = walk.resource("alice", "address_scope", "/address-scopes", {"ip_version": 4}, {"name": "s"})
    pool = walk.resource(
        "alice", "subnetpool", "/subnetpools", {"name": "p", "prefixes": ["10.8.0.0/16"]}, {"name": "q"}
    )
    shared = {"object_type": "network", "object_id": network, "action": "access_as_shared", "target_tenant": "blue"}
    policy = walk.resource("alice", "rbac_policy", "/rbac-policies", shared, {"target_tenant": "green"})
    return [
        ("alice", "network", f"/networks/{network}"),
        ("alice", "subnet", f"/subnets/{subnet}"),
        ("alice", "router", f"/routers/{router}"),
        ("alice", "port", f"/ports/{port}"),
        ("alice", "security_group", f"/security-groups/{group}"),
        ("alice", "security_group_rule", f"/security-group-rules/{rule_id}"),
        ("alice", "address_scope", f"/address-scopes/{scope}"),
        ("alice", "subnetpool", f"/subnetpools/{pool}"),
        ("admin", "default_security_group_rule", f"/default-security-group-rules/{template}"),
        ("alice", "rbac_policy", f"/rbac-policies/{policy}"),
    ]


def serve(walk: Walk) -> None:
    """An administrator moves a network and a router from agent to agent, and lets an agent go."""
    cloud = walk.cloud
    network, _ = cloud.network(cidr="10.5.0.0/24")
    router = cloud.create("alice", "router")["id"]
    cloud.alive("n1", DHCP_AGENT, L3_AGENT)
    walk._new()
    agents = {agent["binary"]: agent["id"] for agent in cloud.get("admin", "/agents")["agents"]}
    url = f"/agents/{agents[DHCP_AGENT]}/dhcp-networks"
    walk.step("admin", "POST", url, {"network_id": network}, "dhcp_agent.network.add")
    walk.step("admin", "DELETE", f"{url}/{network}", None, "dhcp_agent.network.remove")
    url = f"/agents/{agents[L3_AGENT]}/l3-routers"
    walk.step("admin", "POST", url, {"router_id": router}, "l3_agent.router.add")
    walk.step("admin", "DELETE", f"{url}/{router}", None, "l3_agent.router.remove")
    url = f"/agents/{agents[L3_AGENT]}"
    walk.step("admin", "PUT", url, {"agent": {"description": "d"}}, "agent.update.start", "agent.update.end")
    walk.step("admin", "DELETE", url, None, "agent.delete.start", "agent.delete.end")


def tag(walk: Walk, thing: str) -> None:
    url, tags = f"{thing}/tags", {"tags": ["a", "b"]}
    walk.step("alice", "POST", url, tags, "tag.create.start", "tag.create.end")
    walk.step("alice", "PUT", url, tags, "tag.update.start", "tag.update.end")
    walk.step("alice", "PUT", f"{url}/c", None, "tag.create.start", "tag.create.end")
    walk.step("alice", "DELETE", f"{url}/c", None, "tag.delete.start", "tag.delete.end")
    walk.step("alice", "DELETE", url, None, "tag.delete_all.start", "tag.delete_all.end")


def test_every_change_is_told(cloud: Cloud) -> None:
    walk = Walk(cloud)
    made = make_all(walk)
    tag(walk, made[0][2])
    for who, kind, url in reversed(made):
        walk.step(who, "DELETE", url, None, f"{kind}.delete.start", f"{kind}.delete.end")
    serve(walk)
    public = [route for route in cloud.app.routes if route.path.startswith("/v2.0/")]
    missing = {(r.method, r.path) for r in public if r.method in MUTATING and r.path not in SILENT} - walk.walked
    assert missing == set()


def test_what_is_told(cloud: Cloud) -> None:
    network = cloud.create("alice", "network", name="n")
    assert cloud.notified("network.create.start") == [{"network": {"name": "n"}}]
    assert cloud.notified("network.create.end")[0]["network"]["id"] == network["id"]
    cloud.update("alice", "network", network["id"], name="m")
    assert cloud.notified("network.update.start") == [{"network": {"name": "m"}, "id": network["id"]}]
    cloud.good("alice", "DELETE", f"/networks/{network['id']}")
    assert cloud.notified("network.delete.start") == [{"network_id": network["id"]}]


def test_what_was_refused_is_not_told(cloud: Cloud) -> None:
    assert cloud.refused("rita", "POST", "/networks", {"network": {}})[0] == 403
    assert cloud.notified("network.create.start") == []
