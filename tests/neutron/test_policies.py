"""Who may do what where a rule asks for more than a project: a network's owner, a group's, a share, a manager."""

from typing import Any

import pytest

from tests.neutron.conftest import Cloud


@pytest.fixture
def shared(cloud: Cloud) -> tuple[str, str]:
    """A network of the admin that everybody may use, and its subnet."""
    return cloud.network("admin", shared=True)


def may(cloud: Cloud, who: str, method: str, url: str, body: Any = None) -> bool:
    status, answer = cloud.call(who, method, url, body)
    assert status < 300 or status == 403, (status, answer)
    return status < 300


def test_ports_on_networks_of_others(cloud: Cloud, shared: tuple[str, str]) -> None:
    network, subnet = shared
    allowed: tuple[dict[str, Any], ...] = (
        {},
        {"fixed_ips": [{"subnet_id": subnet}]},
        {"device_id": "x"},
        {"tags": ["a"]},
    )
    refused: tuple[dict[str, Any], ...] = (
        {"fixed_ips": [{"ip_address": "10.0.0.77"}]},
        {"mac_address": "fa:16:3e:01:02:03"},
        {"port_security_enabled": False},
        {"allowed_address_pairs": [{"ip_address": "10.0.0.9"}]},
        {"device_owner": "network:dhcp"},
        {"binding:host_id": "n1"},
    )
    for wish in allowed:
        assert may(cloud, "alice", "POST", "/ports", {"port": {"network_id": network, **wish}}), wish
        assert not may(cloud, "rita", "POST", "/ports", {"port": {"network_id": network, **wish}}), wish
    for wish in refused:
        assert not may(cloud, "alice", "POST", "/ports", {"port": {"network_id": network, **wish}}), wish
    port = cloud.create("alice", "port", network_id=network)["id"]
    chosen = {"port": {"fixed_ips": [{"subnet_id": subnet}]}}
    assert not may(cloud, "alice", "PUT", f"/ports/{port}", chosen)


def test_an_external_network_takes_no_ports(cloud: Cloud) -> None:
    network, _ = cloud.public_network()
    assert may(cloud, "alice", "GET", f"/networks/{network}")
    assert not may(cloud, "alice", "POST", "/ports", {"port": {"network_id": network}})


def test_a_subnet_is_made_by_its_networks_owner(cloud: Cloud, shared: tuple[str, str]) -> None:
    wish = {"subnet": {"network_id": shared[0], "ip_version": 4, "cidr": "10.9.0.0/24"}}
    assert not may(cloud, "alice", "POST", "/subnets", wish)
    assert may(cloud, "admin", "POST", "/subnets", wish)


def test_addresses_of_ports(cloud: Cloud) -> None:
    network, _ = cloud.network()
    port = cloud.create("alice", "port", network_id=network)["id"]
    change = {"port": {"mac_address": "fa:16:3e:01:02:03"}}
    assert [may(cloud, who, "PUT", f"/ports/{port}", change) for who in ("alice", "mona")] == [False, True]


def test_profiles_are_for_services(cloud: Cloud) -> None:
    network, _ = cloud.network()
    wish = {"port": {"network_id": network, "binding:profile": {"a": "b"}}}
    assert [may(cloud, who, "POST", "/ports", wish) for who in ("alice", "admin")] == [False, False]
    made = cloud.good("nova", "POST", "/ports", wish)["port"]
    assert made["binding:profile"] == {"a": "b"}
    provider = {
        name for name in cloud.get("nova", f"/networks/{network}")["network"] if name.startswith("provider")
    }
    assert provider == set()


def test_rules_are_of_the_groups_owner(cloud: Cloud) -> None:
    group = cloud.create("alice", "security_group", name="g")["id"]
    wish = {"security_group_id": group, "direction": "ingress", "protocol": "tcp"}
    made = cloud.create("admin", "security_group_rule", **wish)
    assert made["project_id"] == "adm"
    url = f"/security-group-rules/{made['id']}"
    assert may(cloud, "rita", "GET", url)
    assert cloud.refused("bob", "GET", url) == (404, "SecurityGroupRuleNotFound")
    body = {"security_group_rule": {**wish, "protocol": "udp"}}
    assert not may(cloud, "rita", "POST", "/security-group-rules", body)
    assert cloud.refused("bob", "POST", "/security-group-rules", body) == (404, "SecurityGroupNotFound")
    assert not may(cloud, "rita", "DELETE", url)
    assert may(cloud, "alice", "DELETE", url)


def test_blocks_are_shown_as_written(cloud: Cloud) -> None:
    group = cloud.create("alice", "security_group", name="g")["id"]
    base = {"security_group_id": group, "direction": "ingress"}
    for written, shown, normalized in (
        ("192.168.1.7", "192.168.1.7/32", "192.168.1.7/32"),
        ("10.2.3.125/24", "10.2.3.125/24", "10.2.3.0/24"),
    ):
        made = cloud.create("alice", "security_group_rule", **base, remote_ip_prefix=written)
        assert (made["remote_ip_prefix"], made["normalized_cidr"]) == (shown, normalized)
        found = cloud.get("alice", f"/security-group-rules?remote_ip_prefix={shown}")["security_group_rules"]
        assert [one["id"] for one in found] == [made["id"]]
    same = {"security_group_rule": {**base, "remote_ip_prefix": "10.2.3.0/24"}}
    assert cloud.refused("alice", "POST", "/security-group-rules", same) == (409, "SecurityGroupRuleExists")
    everywhere = cloud.create("alice", "security_group_rule", **base, remote_ip_prefix="1.2.3.4/0")
    assert everywhere["normalized_cidr"] == "0.0.0.0/0"
    assert cloud.create("alice", "security_group_rule", **base, protocol="tcp")["normalized_cidr"] is None


def test_quotas_of_others(cloud: Cloud) -> None:
    for url in ("/quotas/red", "/quotas/red/default", "/quotas/red/details"):
        assert [may(cloud, who, "GET", url) for who in ("rita", "mona", "admin", "bob")] == [True] * 3 + [False]
    assert not may(cloud, "mona", "GET", "/quotas/blue")


def test_tags_of_subnets_are_of_the_networks_owner(cloud: Cloud) -> None:
    network, _ = cloud.network()
    wish = {"network_id": network, "ip_version": 4, "cidr": "10.1.0.0/24", "tenant_id": "blue"}
    subnet = cloud.create("admin", "subnet", **wish)["id"]
    for who in ("alice", "bob"):
        assert may(cloud, who, "PUT", f"/subnets/{subnet}/tags/{who}")
    assert not may(cloud, "rita", "PUT", f"/subnets/{subnet}/tags/rita")
    assert cloud.get("rita", f"/subnets/{subnet}/tags")["tags"] == ["alice", "bob"]
