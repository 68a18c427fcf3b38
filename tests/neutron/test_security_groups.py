"""The story of /v2.0/security-groups and /v2.0/security-group-rules."""

import pytest

from tests.neutron.conftest import Cloud


def test_the_default_group_is_there_on_first_use(cloud: Cloud) -> None:
    groups = cloud.get("alice", "/security-groups")["security_groups"]
    assert [group["name"] for group in groups] == ["default"]
    rules = groups[0]["security_group_rules"]
    told = {(rule["direction"], rule["ethertype"], rule["remote_group_id"]) for rule in rules}
    group = groups[0]["id"]
    assert told == {
        ("egress", "IPv4", None),
        ("egress", "IPv6", None),
        ("ingress", "IPv4", group),
        ("ingress", "IPv6", group),
    }
    assert len(cloud.get("alice", "/security-groups")["security_groups"]) == 1
    assert cloud.get("bob", "/security-groups")["security_groups"][0]["id"] != group
    url = f"/security-groups/{group}"
    assert cloud.refused("alice", "DELETE", url) == (409, "SecurityGroupCannotRemoveDefault")
    rename = {"security_group": {"name": "other"}}
    assert cloud.refused("alice", "PUT", url, rename) == (409, "SecurityGroupCannotUpdateDefault")
    second = {"security_group": {"name": "default"}}
    assert cloud.refused("alice", "POST", "/security-groups", second) == (409, "SecurityGroupDefaultAlreadyExists")
    third = cloud.create("alice", "security_group", name="third")["id"]
    renamed = cloud.refused("alice", "PUT", f"/security-groups/{third}", second)
    assert renamed == (409, "SecurityGroupDefaultAlreadyExists")
    # an administrator may; the project has a new one at its next use
    cloud.good("admin", "DELETE", url)
    assert cloud.get("alice", "/security-groups")["security_groups"][0]["id"] != group


def test_a_group_from_cradle_to_grave(cloud: Cloud) -> None:
    group = cloud.create("alice", "security_group", name="sg1", description="d")
    assert len(group["security_group_rules"]) == 2
    assert group["tenant_id"] == "red"
    assert cloud.refused("bob", "GET", f"/security-groups/{group['id']}") == (404, "SecurityGroupNotFound")
    assert cloud.refused("alice", "GET", "/security-groups/sg1") == (404, "SecurityGroupNotFound")
    found = cloud.get("alice", "/security-groups?name=sg1&fields=id&fields=name&fields=shared")["security_groups"]
    assert found == [{"id": group["id"], "name": "sg1", "shared": False}]
    assert cloud.update("alice", "security_group", group["id"], name="sg2", description="")["name"] == "sg2"
    network, _ = cloud.network()
    port = cloud.create("alice", "port", network_id=network, security_groups=[group["id"]])
    assert cloud.refused("alice", "DELETE", f"/security-groups/{group['id']}") == (409, "SecurityGroupInUse")
    cloud.good("alice", "DELETE", f"/ports/{port['id']}")
    cloud.good("alice", "DELETE", f"/security-groups/{group['id']}")
    assert cloud.refused("alice", "GET", f"/security-groups/{group['id']}")[0] == 404


def test_rules(cloud: Cloud) -> None:
    group = cloud.create("alice", "security_group", name="web")["id"]
    body = {"security_group_id": group, "direction": "ingress", "protocol": "tcp"}
    wish = {**body, "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "0.0.0.0/0"}
    rule = cloud.create("alice", "security_group_rule", **wish, ethertype="IPv4")
    assert rule["protocol"] == "tcp"
    assert (rule["port_range_min"], rule["port_range_max"], rule["remote_ip_prefix"]) == (22, 22, "0.0.0.0/0")
    url = f"/security-group-rules/{rule['id']}"
    assert cloud.get("alice", url)["security_group_rule"] == rule
    assert cloud.refused("bob", "GET", url) == (404, "SecurityGroupRuleNotFound")
    for same in (wish, {**wish, "remote_ip_prefix": None}, {**wish, "protocol": 6}, {**wish, "protocol": "6"}):
        status = cloud.refused("alice", "POST", "/security-group-rules", {"security_group_rule": same})
        assert status == (409, "SecurityGroupRuleExists"), same
    listed = cloud.get("alice", f"/security-group-rules?security_group_id={group}&direction=ingress")
    assert listed["security_group_rules"] == [rule]
    bodies = [{**body, "port_range_min": port, "port_range_max": port} for port in (80, 443)]
    made = cloud.good("alice", "POST", "/security-group-rules", {"security_group_rules": bodies})
    assert [one["port_range_min"] for one in made["security_group_rules"]] == [80, 443]
    icmp = cloud.create(
        "alice", "security_group_rule", security_group_id=group, direction="ingress", protocol="icmp"
    )
    assert icmp["ethertype"] == "IPv4"
    six = {"ethertype": "IPv6", "protocol": "icmp", "port_range_min": 128, "port_range_max": 0}
    assert cloud.create("alice", "security_group_rule", **{**body, **six})["protocol"] == "ipv6-icmp"
    cloud.good("alice", "DELETE", url)
    assert cloud.refused("alice", "GET", url)[0] == 404
    assert len(cloud.get("alice", f"/security-groups/{group}")["security_group"]["security_group_rules"]) == 6


@pytest.mark.parametrize(
    ("protocol", "first", "last", "reason"),
    [
        ("tcp", -16, 80, "Invalid value for port -16"),
        ("tcp", 80, 65536, "Invalid value for port 65536"),
        ("tcp", 0, 80, "Invalid value for port 0"),
        ("tcp", 80, 79, "For TCP/UDP protocols, port_range_min must be <= port_range_max"),
        ("tcp", None, 6, "For TCP/UDP protocols, port_range_min must be <= port_range_max"),
        ("icmp", 1, 256, "Invalid value for ICMP code (port_range_max) 256. It must be 0 to 255."),
        ("icmp", 300, 1, "Invalid value for ICMP type (port_range_min) 300. It must be 0 to 255."),
        ("icmp", -1, 25, "Invalid value for port -1"),
        ("icmp", None, 6, "ICMP code (port-range-max) 6 is provided but ICMP type (port-range-min) is missing."),
    ],
)
def test_ports_of_rules(cloud: Cloud, protocol: str, first: int | None, last: int | None, reason: str) -> None:
    group = cloud.create("alice", "security_group", name="web")["id"]
    rule = {"security_group_id": group, "direction": "ingress", "protocol": protocol}
    body = {"security_group_rule": {**rule, "port_range_min": first, "port_range_max": last}}
    status, answer = cloud.call("alice", "POST", "/security-group-rules", body)
    assert (status, answer["NeutronError"]["message"]) == (400, reason)


def test_remote_groups(cloud: Cloud) -> None:
    one = cloud.create("alice", "security_group", name="one")["id"]
    two = cloud.create("alice", "security_group", name="two")["id"]
    others = cloud.create("bob", "security_group", name="theirs")["id"]
    body = {"security_group_id": one, "direction": "ingress", "remote_group_id": two}
    cloud.create("alice", "security_group_rule", **body)
    both = {**body, "remote_ip_prefix": "10.0.0.0/8"}
    assert cloud.refused("alice", "POST", "/security-group-rules", {"security_group_rule": both})[0] == 400
    for wrong in ({"remote_group_id": others}, {"security_group_id": others}, {"remote_group_id": "none"}):
        status = cloud.refused("alice", "POST", "/security-group-rules", {"security_group_rule": {**body, **wrong}})
        assert status == (404, "SecurityGroupNotFound"), wrong
    cloud.good("alice", "DELETE", f"/security-groups/{two}")
    rules = cloud.get("alice", f"/security-groups/{one}")["security_group"]["security_group_rules"]
    assert [rule["remote_group_id"] for rule in rules] == [None, None]


def test_quota(cloud: Cloud) -> None:
    cloud.get("alice", "/security-groups")
    cloud.good("admin", "PUT", "/quotas/red", {"quota": {"security_group": 2, "security_group_rule": 7}})
    group = cloud.create("alice", "security_group", name="a")["id"]
    body = {"security_group": {"name": "b"}}
    assert cloud.refused("alice", "POST", "/security-groups", body) == (409, "OverQuota")
    rule = {"security_group_id": group, "direction": "ingress", "protocol": "tcp"}
    cloud.create("alice", "security_group_rule", **rule)
    more = {"security_group_rule": {**rule, "protocol": "udp"}}
    assert cloud.refused("alice", "POST", "/security-group-rules", more) == (409, "OverQuota")
