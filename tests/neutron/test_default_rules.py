"""The story of /v2.0/default-security-group-rules: what new groups begin with."""

from typing import Any

from tests.neutron.conftest import Cloud

URL, KIND = "/default-security-group-rules", "default_security_group_rule"


def rules(cloud: Cloud, who: str, name: str) -> list[tuple[Any, ...]]:
    """The rules of a project's group of this name."""
    (group,) = cloud.get(who, f"/security-groups?name={name}")["security_groups"]
    return sorted(
        (rule["direction"], rule["ethertype"], rule["port_range_min"] or 0, rule["remote_group_id"] == group["id"])
        for rule in group["security_group_rules"]
    )


def test_upstreams_four(cloud: Cloud) -> None:
    found = cloud.get("alice", URL)[f"{KIND}s"]
    ways = sorted((one["direction"], one["ethertype"], one["remote_group_id"]) for one in found[2:])
    assert ways == [("ingress", "IPv4", "PARENT"), ("ingress", "IPv6", "PARENT")]
    assert all(one["used_in_default_sg"] for one in found)
    assert [one["used_in_non_default_sg"] for one in found] == [True, True, False, False]
    assert cloud.get("alice", f"{URL}/{found[0]['id']}")[KIND] == found[0]
    assert cloud.get("alice", f"{URL}?direction=ingress")[f"{KIND}s"] == found[2:]
    cloud.create("alice", "security_group", name="g")
    out = [("egress", "IPv4", 0, False), ("egress", "IPv6", 0, False)]
    assert rules(cloud, "alice", "g") == out
    assert rules(cloud, "alice", "default") == [
        *out, ("ingress", "IPv4", 0, True), ("ingress", "IPv6", 0, True)
    ]  # fmt: skip


def test_others_instead(cloud: Cloud) -> None:
    assert rules(cloud, "alice", "default")
    for one in cloud.get("admin", URL)[f"{KIND}s"]:
        if one["direction"] == "egress":
            cloud.good("admin", "DELETE", f"{URL}/{one['id']}")
            assert cloud.refused("admin", "DELETE", f"{URL}/{one['id']}")[0] == 404
    wish = {"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
    made = cloud.good("admin", "POST", URL, {KIND: wish})[KIND]
    assert (made["used_in_default_sg"], made["used_in_non_default_sg"], made["ethertype"]) == (False, True, "IPv4")
    assert cloud.refused("admin", "POST", URL, {KIND: wish}) == (409, "DefaultSecurityGroupRuleExists")
    cloud.create("alice", "security_group", name="g")
    assert rules(cloud, "alice", "g") == [("ingress", "IPv4", 22, False)]
    assert rules(cloud, "bob", "default") == [("ingress", "IPv4", 0, True), ("ingress", "IPv6", 0, True)]
    assert len(rules(cloud, "alice", "default")) == 4  # it was there before
    cloud.good("admin", "DELETE", f"{URL}/{made['id']}")
    cloud.create("alice", "security_group", name="h")
    assert rules(cloud, "alice", "h") == []


def test_who_and_what(cloud: Cloud) -> None:
    wish = {KIND: {"direction": "ingress"}}
    assert cloud.refused("alice", "POST", URL, wish)[0] == 403
    made = cloud.good("admin", "POST", URL, wish)[KIND]["id"]
    assert cloud.refused("alice", "DELETE", f"{URL}/{made}")[0] == 403
    assert cloud.refused("alice", "GET", f"{URL}/nothing") == (404, "DefaultSecurityGroupRuleNotFound")
    for wrong in (
        {},
        {"direction": "up"},
        {"direction": "ingress", "port_range_min": 1},
        {"direction": "ingress", "protocol": "tcp", "port_range_min": 9, "port_range_max": 8},
        {"direction": "ingress", "remote_ip_prefix": "10.0.0.0/8", "remote_group_id": "PARENT"},
        {"direction": "ingress", "colour": 1},
    ):
        assert cloud.refused("admin", "POST", URL, {KIND: wrong})[0] == 400, wrong
    unknown = {KIND: {"direction": "ingress", "remote_group_id": "nobody"}}
    assert cloud.refused("admin", "POST", URL, unknown) == (404, "SecurityGroupNotFound")
