"""What the cloud made of a port stays so; what hangs on a thing is reached through that thing (NET-2, 9, 10)."""

from typing import Any

import pytest

from tests.neutron.conftest import Cloud


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def router_port(cloud: Cloud, network: str) -> tuple[str, str, dict[str, Any]]:
    """Bob's router on a network, by a port of his: (router, port, the port as it is then)."""
    router = cloud.create("bob", "router")["id"]
    port = cloud.create("bob", "port", network_id=network)["id"]
    cloud.good("bob", "PUT", f"/routers/{router}/add_router_interface", {"port_id": port})
    return router, port, cloud.get("bob", f"/ports/{port}")["port"]


# ── NET-2: a port that agents trust does not become one that a guest has ─────────────────────────────────────


def test_a_routers_port_stays_a_routers(cloud: Cloud) -> None:
    """On a shared network: a trusted port taken from its router would be a guest's without a guard."""
    network, _ = cloud.network("admin", shared=True)
    router, port, before = router_port(cloud, network)
    assert before["port_security_enabled"] is False
    changes: tuple[dict[str, Any], ...] = (
        {"device_owner": ""}, {"device_id": ""}, {"device_owner": "", "device_id": ""}, {"fixed_ips": []},
        {"device_owner": "compute:nova"}, {"device_id": "another"}, {"mac_address": "fa:16:3e:00:00:01"},
        {"allowed_address_pairs": [{"ip_address": "10.0.0.9"}]}, {"port_security_enabled": True},
        {"security_groups": ["default"]}, {"fixed_ips": [{"ip_address": "10.0.0.99"}]}, {"binding:host_id": ""},
    )  # fmt: skip
    for change in changes:
        status, _ = cloud.refused("bob", "PUT", f"/ports/{port}", {"port": change})
        assert status in (403, 404, 409), change
    assert cloud.refused("bob", "DELETE", f"/ports/{port}")[0] == 409
    same = {"device_id": router, "security_groups": [], "name": "mine"}
    cloud.good("bob", "PUT", f"/ports/{port}", {"port": same})
    after = cloud.get("bob", f"/ports/{port}")["port"]
    changing = ("name", "updated_at", "revision_number")
    assert {k: v for k, v in after.items() if k not in changing} == {
        k: v for k, v in before.items() if k not in changing
    }


def test_the_dhcp_servers_port_is_nobodys_to_change(cloud: Cloud) -> None:
    cloud.alive("net1", "neutron-dhcp-agent")
    network, _ = cloud.network()
    port = cloud.get("alice", f"/ports?network_id={network}&device_owner=network:dhcp")["ports"][0]["id"]
    for who in ("alice", "admin"):
        wishes: tuple[dict[str, Any], ...] = (
            {"device_owner": ""}, {"device_id": ""}, {"fixed_ips": []}, {"binding:host_id": ""},
        )  # fmt: skip
        for change in wishes:
            status, _ = cloud.refused(who, "PUT", f"/ports/{port}", {"port": change})
            assert status in (403, 409), (who, change)
        assert cloud.refused(who, "DELETE", f"/ports/{port}")[0] == 409
    assert cloud.get("host:net1", "/hosts/net1/dhcp")[network]["port_id"] == port


def test_a_port_that_left_its_router_properly_is_gone(cloud: Cloud) -> None:
    network, _ = cloud.network("admin", shared=True)
    router, port, _ = router_port(cloud, network)
    cloud.good("bob", "PUT", f"/routers/{router}/remove_router_interface", {"port_id": port})
    assert cloud.refused("bob", "GET", f"/ports/{port}")[0] == 404


def test_a_network_that_is_no_longer_shared_lets_nobody_in(cloud: Cloud) -> None:
    network, subnet = cloud.network("admin", shared=True)
    cloud.update("admin", "network", network, shared=False)
    attempts: list[tuple[str, str, Any]] = [
        ("POST", "/ports", {"port": {"network_id": network}}),
        ("GET", f"/networks/{network}", None), ("GET", f"/subnets/{subnet}", None),
        ("POST", "/subnets", {"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.8.0.0/24"}}),
    ]  # fmt: skip
    for method, url, body in attempts:
        assert cloud.refused("bob", method, url, body)[0] == 404, url
    assert cloud.get("bob", f"/ports?network_id={network}")["ports"] == []


# ── NET-9: by no other way either ────────────────────────────────────────────────────────────────────────────

FOR_ADMINISTRATORS: list[tuple[str, dict[str, Any]]] = [
    ("network", {"shared": True}), ("network", {"router:external": True}), ("network", {"is_default": True}),
    ("network", {"provider:network_type": "vlan"}), ("network", {"provider:segmentation_id": 5}),
    ("network", {"provider:physical_network": "public"}),
    ("port", {"binding:host_id": "c1"}), ("port", {"binding:profile": {"a": "b"}}),
    ("port", {"device_owner": "network:dhcp"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values"), FOR_ADMINISTRATORS)
def test_bulk_and_single_ask_the_same(cloud: Cloud, kind: str, values: dict[str, Any]) -> None:
    """One bad one among many spoils them all; nothing of the others is left."""
    network, _ = cloud.network()
    base = {"network_id": network} if kind == "port" else {}
    before = len(cloud.get("alice", f"/{kind}s")[f"{kind}s"])
    assert cloud.refused("alice", "POST", f"/{kind}s", {kind: {**base, **values}})[0] == 403
    many = {f"{kind}s": [base, {**base, **values}, base]}
    assert cloud.refused("alice", "POST", f"/{kind}s", many)[0] == 403
    assert len(cloud.get("alice", f"/{kind}s")[f"{kind}s"]) == before


@pytest.mark.parametrize("key", ["tenant_id", "project_id"])
def test_things_are_not_made_for_others(cloud: Cloud, key: str) -> None:
    network, _ = cloud.network()
    public, _ = cloud.public_network()
    group = cloud.create("alice", "security_group", name="g")["id"]
    for url, one, values in (
        ("/networks", "network", {}), ("/routers", "router", {}),
        ("/security-groups", "security_group", {"name": "x"}), ("/ports", "port", {"network_id": network}),
        ("/floatingips", "floatingip", {"floating_network_id": public}),
        ("/subnets", "subnet", {"network_id": network, "ip_version": 4, "cidr": "10.8.0.0/24"}),
        ("/security-group-rules", "security_group_rule", {"security_group_id": group, "direction": "ingress"}),
    ):  # fmt: skip
        assert cloud.refused("alice", "POST", url, {one: {**values, key: "blue"}})[0] == 400, url
        both = {**values, "tenant_id": "red", "project_id": "blue"}
        assert cloud.refused("alice", "POST", url, {one: both})[0] == 400, url


def test_nothing_changes_its_owner(cloud: Cloud) -> None:
    network, subnet = cloud.network()
    port = cloud.create("alice", "port", network_id=network)["id"]
    for url, one in (
        (f"/networks/{network}", "network"),
        (f"/subnets/{subnet}", "subnet"),
        (f"/ports/{port}", "port"),
    ):
        for key in ("tenant_id", "project_id", "id", "network_id"):
            for who in ("alice", "admin"):
                assert cloud.refused(who, "PUT", url, {one: {key: "blue"}})[0] == 400, (url, key)


# ── NET-10: a child is reached through its own parent (OSSA-2024-005, OSSA-2026-016) ─────────────────────────


def test_tags_of_others(cloud: Cloud) -> None:
    """By every collection's name, right and wrong, whole and single; on shared things to look at only."""
    network, subnet = cloud.network()
    public, _ = cloud.public_network()
    port = cloud.create("alice", "port", network_id=network)["id"]
    group = cloud.create("alice", "security_group", name="g")
    things = {
        "networks": network, "subnets": subnet, "ports": port, "security-groups": group["id"],
        "security_groups": group["id"], "routers": cloud.create("alice", "router")["id"],
        "security-group-rules": group["security_group_rules"][0]["id"],
        "floatingips": cloud.create("alice", "floatingip", floating_network_id=public)["id"],
    }  # fmt: skip
    for collection, key in things.items():
        cloud.good("alice", "PUT", f"/{collection}/{key}/tags", {"tags": ["mine"]})
    for collection, key in [(name, key) for name in (*things, "x", "", "..") for key in things.values()]:
        url = f"/{collection}/{key}/tags"
        for method, path, body in (
            ("PUT", url, {"tags": ["stolen"]}), ("POST", url, {"tags": ["stolen"]}), ("DELETE", url, None),
            ("PUT", f"{url}/stolen", None), ("DELETE", f"{url}/mine", None), ("GET", url, None),
            ("GET", f"{url}/mine", None),
        ):  # fmt: skip
            status, _ = cloud.call("bob", method, path, body)
            assert status in (403, 404, 405), (method, path)
            if method != "GET":
                status, _ = cloud.call("rita", method, path, body)
                assert status in (403, 404, 405), (method, path)
    for collection, key in things.items():
        assert cloud.get("alice", f"/{collection}/{key}/tags")["tags"] == ["mine"]
    assert cloud.get("bob", f"/networks/{public}/tags")["tags"] == []
    assert cloud.refused("bob", "PUT", f"/networks/{public}/tags/x")[0] == 403


def test_a_wrong_parent_is_no_parent(cloud: Cloud) -> None:
    """An interface, a rule, a port: taken by its id through another thing of one's own, it is not there."""
    _, subnet = cloud.network()
    theirs = cloud.create("alice", "router")["id"]
    cloud.good("alice", "PUT", f"/routers/{theirs}/add_router_interface", {"subnet_id": subnet})
    port = cloud.get("alice", f"/ports?device_id={theirs}")["ports"][0]["id"]
    for who, own in (
        ("bob", cloud.create("bob", "router")["id"]),
        ("alice", cloud.create("alice", "router")["id"]),
    ):
        for body in ({"port_id": port}, {"subnet_id": subnet}, {"port_id": port, "subnet_id": subnet}):
            status, _ = cloud.refused(who, "PUT", f"/routers/{own}/remove_router_interface", body)
            assert status == 404, (who, body)
    routes = {"router": {"routes": [{"destination": "10.7.0.0/24", "nexthop": "10.0.0.9"}]}}
    for action in ("add_extraroutes", "remove_extraroutes"):
        assert cloud.refused("bob", "PUT", f"/routers/{theirs}/{action}", routes)[0] == 404
    group = cloud.create("alice", "security_group", name="g")
    rule = group["security_group_rules"][0]["id"]
    assert cloud.refused("bob", "DELETE", f"/security-group-rules/{rule}")[0] == 404
    mine = cloud.create("bob", "security_group", name="m")["id"]
    for body in (
        {"security_group_id": group["id"], "direction": "ingress"},
        {"security_group_id": mine, "direction": "ingress", "remote_group_id": group["id"]},
    ):
        assert cloud.refused("bob", "POST", "/security-group-rules", {"security_group_rule": body})[0] == 404
