"""addSecurityGroup and removeSecurityGroup."""

from typing import Any

import pytest

from tests.nova.api_cloud import Cloud


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host("h1")
    return cloud


def groups(cloud: Cloud, server: str) -> set[str]:
    found = cloud.get("alice", f"/servers/{server}/os-security-groups")["security_groups"]
    return {group["name"] for group in found}


def refused(cloud: Cloud, who: str, server: str, **action: Any) -> tuple[int, str]:
    return cloud.refused(who, "POST", f"/servers/{server}/action", action)


def test_groups_come_and_go(cloud: Cloud) -> None:
    network = cloud.network()
    web = cloud._neutron("alice", "security_group", name="web")["id"]
    server = cloud.running(networks=[{"uuid": network}, {"uuid": network}])
    cloud.hints.clear()
    cloud.act("alice", server, addSecurityGroup={"name": "web"})
    assert groups(cloud, server) == {"default", "web"}
    assert [topic for topic, _ in cloud.hints].count("neutron.ports.h1") >= 2, "each port's host looks again"
    cloud.act("alice", server, addSecurityGroup={"name": web})
    cloud.act("alice", server, removeSecurityGroup={"name": web})
    assert groups(cloud, server) == {"default"}
    status, text = refused(cloud, "alice", server, removeSecurityGroup={"name": "web"})
    assert (status, text) == (400, f"Security group web is not associated with the instance {server}")
    cloud.act("alice", server, removeSecurityGroup={"name": "default"})
    assert groups(cloud, server) == set()


def test_the_rules_of_a_group_are_shown_as_compute_had_them(cloud: Cloud) -> None:
    network = cloud.network()
    web, db = (cloud._neutron("alice", "security_group", name=name)["id"] for name in ("web", "db"))
    rules: tuple[dict[str, Any], ...] = (
        {"protocol": "tcp", "port_range_min": 80, "port_range_max": 81, "remote_ip_prefix": "192.0.2.0/24"},
        {"protocol": "icmp"},
        {"protocol": "udp", "ethertype": "IPv6"},
        {"remote_group_id": db},
    )
    for rule in rules:
        cloud._neutron("alice", "security_group_rule", security_group_id=web, direction="ingress", **rule)
    server = cloud.running(networks=[{"uuid": network}], security_groups=[{"name": "web"}])
    (group,) = cloud.get("alice", f"/servers/{server}/os-security-groups")["security_groups"]
    assert (group["id"], group["name"], group["tenant_id"]) == (web, "web", "red")
    keys = ("ip_protocol", "from_port", "to_port", "ip_range", "group")
    assert [tuple(rule[key] for key in keys) for rule in group["rules"]] == [
        ("tcp", 80, 81, {"cidr": "192.0.2.0/24"}, {}),
        ("icmp", -1, -1, {"cidr": "0.0.0.0/0"}, {}),
        ("udp", 1, 65535, {"cidr": "::/0"}, {}),
        (None, None, None, {}, {"name": "db", "tenant_id": "red"}),
    ]
    assert all(rule["parent_group_id"] == web and rule["id"] for rule in group["rules"])


def test_what_is_refused(cloud: Cloud) -> None:
    network = cloud.network()
    server = cloud.running(networks=[{"uuid": network}])
    cloud._neutron("bob", "security_group", name="theirs")
    for name in ("nope", "theirs"):
        assert refused(cloud, "alice", server, addSecurityGroup={"name": name})[0] == 404
        assert refused(cloud, "alice", server, removeSecurityGroup={"name": name})[0] == 404
    for _ in range(2):
        cloud._neutron("alice", "security_group", name="twin")
    assert refused(cloud, "alice", server, addSecurityGroup={"name": "twin"})[0] == 409
    for body in ({}, {"name": 1, "x": 2}, {"name": "web", "x": 1}, "web"):
        assert refused(cloud, "alice", server, addSecurityGroup=body)[0] == 400
    assert refused(cloud, "rita", server, addSecurityGroup={"name": "default"})[0] == 403
    assert refused(cloud, "bob", server, addSecurityGroup={"name": "default"})[0] == 404
    bare = cloud.running()
    assert refused(cloud, "alice", bare, addSecurityGroup={"name": "default"})[0] == 400
    building = cloud.create(networks=[{"uuid": network}])
    assert refused(cloud, "alice", building, addSecurityGroup={"name": "default"})[0] == 409
