"""The network in compute's own old form: security groups, floating IPs, networks; neutron decides."""

from typing import Any

import pytest

from tests.nova.api_cloud import Cloud

GROUPS, RULES, ADDRESSES = "/os-security-groups", "/os-security-group-rules", "/os-floating-ips"


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.version = "2.35"
    cloud.add_host("h1")
    return cloud


def neutron(cloud: Cloud, method: str, path: str, body: Any = None, who: str = "admin") -> Any:
    status, answer, _ = cloud.neutron.call(method, f"/v2.0/{path}", body, {"X-Auth-Token": who})
    assert status < 300, answer
    return answer


def make_group(cloud: Cloud, name: str, who: str = "alice") -> Any:
    wish = {"security_group": {"name": name, "description": "d"}}
    return cloud.good(who, "POST", GROUPS, wish)["security_group"]


def make_rule(cloud: Cloud, parent: str, **wish: Any) -> Any:
    body = {"security_group_rule": {"parent_group_id": parent, **wish}}
    return cloud.good("alice", "POST", RULES, body)["security_group_rule"]


def test_security_groups(cloud: Cloud) -> None:
    made = make_group(cloud, " web ")
    url = f"{GROUPS}/{made['id']}"
    assert made == {"id": made["id"], "name": " web ", "description": "d", "tenant_id": "red", "rules": []}
    assert {one["name"] for one in cloud.get("rita", GROUPS)["security_groups"]} == {"default", " web "}
    assert cloud.get("alice", url)["security_group"] == made
    changed = {"security_group": {"name": "www", "description": ""}}
    assert cloud.good("alice", "PUT", url, changed)["security_group"]["name"] == "www"
    assert len(cloud.get("alice", f"{GROUPS}?limit=1&offset=1")["security_groups"]) == 1
    make_group(cloud, "blue", "bob")
    names = {one["name"] for one in cloud.get("admin", f"{GROUPS}?all_tenants=1")["security_groups"]}
    assert {"blue", "www"} <= names
    assert "blue" not in {one["name"] for one in cloud.get("alice", f"{GROUPS}?all_tenants=1")["security_groups"]}
    assert cloud.call("alice", "DELETE", url)[0] == 202
    assert cloud.refused("alice", "GET", url)[0] == 404


def test_rules(cloud: Cloud) -> None:
    parent, friends = make_group(cloud, "web")["id"], make_group(cloud, "friends")["id"]
    rule = make_rule(cloud, parent, ip_protocol="tcp", from_port=80, to_port="81", cidr="10.0.0.0/8")
    assert rule == {
        "id": rule["id"],
        "parent_group_id": parent,
        "ip_protocol": "tcp",
        "from_port": 80,
        "to_port": 81,
        "ip_range": {"cidr": "10.0.0.0/8"},
        "group": {},
    }
    icmp = make_rule(cloud, parent, ip_protocol="icmp", from_port=-1, to_port=-1)
    assert (icmp["from_port"], icmp["ip_range"]) == (-1, {"cidr": "0.0.0.0/0"})
    known = make_rule(cloud, parent, ip_protocol="udp", from_port=53, to_port=53, group_id=friends)
    assert (known["group"], known["ip_range"]) == ({"name": "friends", "tenant_id": "red"}, {})
    six = make_rule(cloud, parent, ip_protocol="tcp", from_port=1, to_port=2, cidr="2001:db8::/32")
    assert six["ip_range"] == {"cidr": "2001:db8::/32"}
    shown = cloud.get("alice", f"{GROUPS}/{parent}")["security_group"]["rules"]
    assert {one["id"] for one in shown} == {one["id"] for one in (rule, icmp, known, six)}
    assert known in shown
    assert cloud.call("alice", "DELETE", f"{RULES}/{rule['id']}")[0] == 202
    assert cloud.refused("alice", "DELETE", f"{RULES}/{rule['id']}")[0] == 404
    twice = {"parent_group_id": parent, "ip_protocol": "udp", "from_port": 53, "to_port": 53, "group_id": friends}
    for bad, code in (
        (twice, 400),
        ({**twice, "ip_protocol": "none"}, 400),
        ({**twice, "from_port": -5}, 400),
        ({**twice, "to_port": 70000}, 400),
        ({**twice, "from_port": 80}, 400),
        ({"parent_group_id": parent, "ip_protocol": "tcp", "cidr": "x"}, 400),
        ({**twice, "parent_group_id": "00000000-0000-0000-0000-000000000000"}, 404),
        ({}, 400),
    ):
        assert cloud.refused("alice", "POST", RULES, {"security_group_rule": bad})[0] == code, bad


def test_who_may_what(cloud: Cloud) -> None:
    group = make_group(cloud, "web")["id"]
    default = next(one for one in cloud.get("alice", GROUPS)["security_groups"] if one["name"] == "default")["id"]
    wish = {"security_group": {"name": "x", "description": ""}}
    for who, method, url, body, code in (
        ("rita", "POST", GROUPS, wish, 403),
        ("rita", "DELETE", f"{GROUPS}/{group}", None, 403),
        ("bob", "GET", f"{GROUPS}/{group}", None, 404),
        ("bob", "DELETE", f"{GROUPS}/{group}", None, 404),
        ("alice", "DELETE", f"{GROUPS}/{default}", None, 400),
        ("alice", "POST", GROUPS, {"security_group": {"name": ""}}, 400),
        ("alice", "GET", f"{GROUPS}?limit=x", None, 400),
        ("rita", "POST", ADDRESSES, {}, 403),
    ):
        assert cloud.refused(who, method, url, body)[0] == code
    for url in (GROUPS, ADDRESSES, "/os-networks", "/os-tenant-networks", "/os-floating-ip-pools"):
        assert cloud.refused("alice", "GET", url, version="2.36")[0] == 404


def test_a_group_in_use_stays(cloud: Cloud) -> None:
    group = make_group(cloud, "web")
    server = cloud.create(networks=[{"uuid": cloud.network()}], security_groups=[{"name": "web"}], version="2.37")
    status, message = cloud.refused("alice", "DELETE", f"{GROUPS}/{group['id']}")
    assert (status, "in use" in message) == (400, True)
    assert cloud.get("alice", f"/servers/{server}/os-security-groups")["security_groups"] == [group]


@pytest.fixture
def outside(cloud: Cloud) -> str:
    """An external network, a router to it, and a server behind it: the server."""
    external = neutron(cloud, "POST", "networks", {"network": {"name": "public", "router:external": True}})[
        "network"
    ]
    subnet = {"network_id": external["id"], "ip_version": 4, "cidr": "192.0.2.0/24"}
    neutron(cloud, "POST", "subnets", {"subnet": subnet})
    network = cloud.network()
    (inner,) = neutron(cloud, "GET", f"subnets?network_id={network}")["subnets"]
    gateway = {"network_id": external["id"]}
    router = neutron(cloud, "POST", "routers", {"router": {"external_gateway_info": gateway}}, "alice")["router"]
    neutron(cloud, "PUT", f"routers/{router['id']}/add_router_interface", {"subnet_id": inner["id"]}, "alice")
    return cloud.running(networks=[{"uuid": network}], version="2.37")


def test_floating_ips(cloud: Cloud, outside: str) -> None:
    assert cloud.get("alice", "/os-floating-ip-pools") == {"floating_ip_pools": [{"name": "public"}]}
    made = cloud.good("alice", "POST", ADDRESSES, {"pool": "public"})["floating_ip"]
    assert made == {"id": made["id"], "ip": made["ip"], "pool": "public", "fixed_ip": None, "instance_id": None}
    cloud.good("alice", "POST", f"/servers/{outside}/action", {"addFloatingIp": {"address": made["ip"]}})
    shown = cloud.get("alice", f"{ADDRESSES}/{made['id']}")["floating_ip"]
    assert shown["instance_id"] == outside
    assert shown["fixed_ip"].startswith("10.0.0.")
    assert cloud.get("rita", ADDRESSES)["floating_ips"] == [shown]
    other = cloud.good("alice", "POST", ADDRESSES, {})["floating_ip"]
    url = f"/servers/{outside}/action"
    assert cloud.refused("alice", "POST", url, {"addFloatingIp": {"address": other["ip"]}})[0] == 400, "it has one"
    assert cloud.refused("alice", "POST", url, {"removeFloatingIp": {"address": other["ip"]}})[0] == 409
    cloud.good("alice", "POST", url, {"removeFloatingIp": {"address": made["ip"]}})
    named = {"addFloatingIp": {"address": other["ip"], "fixed_address": shown["fixed_ip"]}}
    cloud.good("alice", "POST", url, named)
    assert cloud.get("alice", f"{ADDRESSES}/{other['id']}")["floating_ip"]["fixed_ip"] == shown["fixed_ip"]
    assert cloud.call("alice", "DELETE", f"{ADDRESSES}/{other['id']}")[0] == 202
    assert [one["id"] for one in cloud.get("alice", ADDRESSES)["floating_ips"]] == [made["id"]]


def test_floating_ips_that_cannot_be(cloud: Cloud, outside: str) -> None:
    url = f"/servers/{outside}/action"
    made = cloud.good("alice", "POST", ADDRESSES, {})["floating_ip"]
    foreign = {"addFloatingIp": {"address": made["ip"], "fixed_address": "10.9.9.9"}}
    for who, path, body, code in (
        ("alice", url, {"addFloatingIp": {"address": "0.0.0.0"}}, 404),
        ("alice", url, {"removeFloatingIp": {"address": "0.0.0.0"}}, 404),
        ("alice", url, {"addFloatingIp": {"address": ""}}, 404),
        ("alice", url, {"addFloatingIp": {}}, 400),
        ("alice", url, foreign, 400),
        ("rita", url, {"addFloatingIp": {"address": made["ip"]}}, 403),
        ("bob", url, {"addFloatingIp": {"address": made["ip"]}}, 404),
        ("alice", ADDRESSES, {"pool": "mars"}, 404),
    ):
        assert cloud.refused(who, "POST", path, body)[0] == code, body
    for method in ("GET", "DELETE"):
        assert cloud.refused("alice", method, f"{ADDRESSES}/00000000-0000-0000-0000-000000000000")[0] == 404
        assert cloud.refused("bob", method, f"{ADDRESSES}/{made['id']}")[0] == 404
    alone = cloud.running(version="2.37")
    body = {"addFloatingIp": {"address": made["ip"]}}
    assert cloud.refused("alice", "POST", f"/servers/{alone}/action", body)[0] == 400


def test_networks(cloud: Cloud) -> None:
    network = cloud.network()
    (brief,) = cloud.get("rita", "/os-tenant-networks")["networks"]
    assert brief == {"id": network, "label": "private", "cidr": "None"}
    assert cloud.get("alice", f"/os-tenant-networks/{network}")["network"] == brief
    (shown,) = cloud.get("alice", "/os-networks")["networks"]
    assert (shown["id"], shown["label"], shown["cidr"]) == (network, "private", None)
    assert cloud.get("alice", f"/os-networks/{network}")["network"] == shown
    assert cloud.get("bob", "/os-networks")["networks"] == []
    for path in ("/os-networks", "/os-tenant-networks"):
        assert cloud.refused("bob", "GET", f"{path}/{network}")[0] == 404
