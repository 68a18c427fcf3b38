"""The story of /v2.0/ports."""

import pytest

from tests.neutron.conftest import Cloud


def test_a_port_from_cradle_to_grave(cloud: Cloud) -> None:
    network, subnet = cloud.network()
    port = cloud.create("alice", "port", name="p1", network_id=network, admin_state_up=True)
    assert port["status"] == "DOWN"
    assert port["mac_address"].startswith("fa:16:3e:")
    assert port["fixed_ips"] == [{"subnet_id": subnet, "ip_address": "10.0.0.2"}]
    assert port["device_id"] == port["device_owner"] == ""
    assert port["port_security_enabled"] is True
    assert port["binding:vnic_type"] == "normal"
    assert "binding:host_id" not in port
    assert port["dns_assignment"] == [
        {"ip_address": "10.0.0.2", "hostname": "host-10-0-0-2", "fqdn": "host-10-0-0-2.openstacklocal."}
    ]
    groups = cloud.get("alice", "/security-groups?name=default")["security_groups"]
    assert port["security_groups"] == [groups[0]["id"]]
    url = f"/ports/{port['id']}"
    assert cloud.get("rita", url)["port"] == port
    assert cloud.refused("bob", "GET", url) == (404, "PortNotFound")
    assert cloud.refused("rita", "DELETE", url)[0] == 403
    changed = cloud.update(
        "alice", "port", port["id"], name="p2", device_id="d", dns_name="web", admin_state_up=False
    )
    assert (changed["name"], changed["device_id"], changed["admin_state_up"]) == ("p2", "d", False)
    assert changed["dns_assignment"][0]["fqdn"] == "web.openstacklocal."
    assert changed["revision_number"] == 2
    cloud.good("alice", "DELETE", url)
    assert cloud.refused("alice", "GET", url) == (404, "PortNotFound")
    assert len(cloud.notified("port.create.end")) == 1
    assert cloud.notified("port.delete.end")[0]["port_id"] == port["id"]


def test_addresses_given_and_chosen(cloud: Cloud) -> None:
    network, subnet = cloud.network()
    at = {"subnet_id": subnet, "ip_address": "10.0.0.77"}
    port = cloud.create("alice", "port", network_id=network, fixed_ips=[at])
    assert port["fixed_ips"] == [at]

    def kind(*fixed_ips: dict[str, str]) -> tuple[int, str]:
        body = {"port": {"network_id": network, "fixed_ips": list(fixed_ips)}}
        return cloud.refused("alice", "POST", "/ports", body)

    assert kind(at) == (409, "IpAddressInUse")
    assert kind({"ip_address": "10.9.0.1"}) == (400, "InvalidIpForNetwork")
    assert kind({"subnet_id": subnet, "ip_address": "10.9.0.1"}) == (400, "InvalidIpForSubnet")
    assert kind({"ip_address": "10.0.0.255"})[0] == 400
    assert kind({"subnet_id": "nowhere"})[0] == 400
    assert kind({})[0] == 400
    assert kind({"ip_address": "10.0.0.9\n"})[0] == 400
    assert kind({"ip_address": "10.0.0.9"}, {"ip_address": "10.0.0.9"})[0] == 400
    two = cloud.create(
        "alice", "port", network_id=network, fixed_ips=[{"subnet_id": subnet}, {"subnet_id": subnet}]
    )
    assert [address["ip_address"] for address in two["fixed_ips"]] == ["10.0.0.2", "10.0.0.3"]
    none = cloud.create("alice", "port", network_id=network, fixed_ips=[])
    assert none["fixed_ips"] == []
    moved = cloud.update(
        "alice", "port", two["id"], fixed_ips=[{"ip_address": "10.0.0.3"}, {"ip_address": "10.0.0.9"}]
    )
    assert {address["ip_address"] for address in moved["fixed_ips"]} == {"10.0.0.3", "10.0.0.9"}
    # the address that was given up is the lowest free one again
    assert cloud.create("alice", "port", network_id=network)["fixed_ips"][0]["ip_address"] == "10.0.0.2"


def test_a_full_subnet(cloud: Cloud) -> None:
    network, _ = cloud.network(cidr="10.0.0.0/29")
    for _ in range(5):
        cloud.create("alice", "port", network_id=network)
    body = {"port": {"network_id": network}}
    assert cloud.refused("alice", "POST", "/ports", body) == (409, "IpAddressGenerationFailure")


def test_filters(cloud: Cloud) -> None:
    network, subnet = cloud.network()
    bodies = [{"network_id": network, "name": f"p{n}", "device_id": f"d{n % 2}"} for n in range(4)]
    made = cloud.good("alice", "POST", "/ports", {"ports": bodies})["ports"]
    assert [port["name"] for port in made] == ["p0", "p1", "p2", "p3"]

    def names(query: str, who: str = "alice") -> list[str]:
        return [port["name"] for port in cloud.get(who, f"/ports?{query}&sort_key=name")["ports"]]

    assert names("device_id=d1") == ["p1", "p3"]
    assert names("fixed_ips=ip_address%3D10.0.0.3") == ["p1"]
    assert names(f"fixed_ips=ip_address%3D10.0.0.3&fixed_ips=subnet_id%3D{subnet}") == ["p1"]
    assert names("fixed_ips=ip_address_substr%3D0.0.5") == ["p3"]
    assert names(f"mac_address={made[2]['mac_address']}&status=DOWN") == ["p2"]
    assert names("status=ACTIVE") == []
    assert names(f"id={made[0]['id']}&id={made[3]['id']}") == ["p0", "p3"]
    assert names(f"security_groups={made[0]['security_groups'][0]}&limit=2") == ["p0", "p1"]
    assert names("tenant_id=blue") == []
    assert names(f"network_id={network}", "bob") == []
    assert names(f"network_id={network}&binding:host_id=", "alice") == ["p0", "p1", "p2", "p3"]
    page = cloud.get("alice", "/ports?limit=3&sort_key=name")
    assert [link["rel"] for link in page["ports_links"]] == ["next"]


def test_binding_is_for_administrators(cloud: Cloud) -> None:
    network, _ = cloud.network()
    for name, value in {"binding:host_id": "c1", "binding:profile": {"a": "b"}}.items():
        body = {"port": {"network_id": network, name: value}}
        assert cloud.refused("alice", "POST", "/ports", body)[0] == 403, name
    port = cloud.create("admin", "port", network_id=network, tenant_id="red", binding__host_id="c1")
    assert port["binding:vif_type"] == "binding_failed"
    assert port["status"] == "BUILD"
    cloud.alive("c1", "neutron-openvswitch-agent")
    seen = cloud.get("admin", f"/ports/{port['id']}")["port"]
    assert seen["binding:vif_type"] == "ovs"
    assert seen["binding:vif_details"]["bridge_name"] == "br-int"
    assert [p["id"] for p in cloud.get("admin", "/ports?binding:host_id=c1")["ports"]] == [port["id"]]
    assert cloud.refused("alice", "PUT", f"/ports/{port['id']}", {"port": {"binding:host_id": ""}})[0] == 403
    freed = cloud.update("admin", "port", port["id"], binding__host_id="")
    assert (freed["binding:vif_type"], freed["binding:host_id"], freed["status"]) == ("unbound", "", "DOWN")


def test_security_groups_pairs_and_port_security(cloud: Cloud) -> None:
    network, _ = cloud.network()
    group = cloud.create("alice", "security_group", name="web")["id"]
    port = cloud.create("alice", "port", network_id=network, security_groups=[group])
    assert port["security_groups"] == [group]
    url = f"/ports/{port['id']}"
    off = {"port": {"port_security_enabled": False}}
    assert cloud.refused("alice", "PUT", url, off) == (409, "PortSecurityPortHasSecurityGroup")
    pairs = [{"ip_address": "10.0.0.99"}, {"ip_address": "10.2.0.0/16", "mac_address": "FA:16:3E:00:00:09"}]
    changed = cloud.update("alice", "port", port["id"], allowed_address_pairs=pairs)
    assert {pair["ip_address"] for pair in changed["allowed_address_pairs"]} == {"10.0.0.99", "10.2.0.0/16"}
    assert {pair["mac_address"] for pair in changed["allowed_address_pairs"]} == {
        port["mac_address"],
        "fa:16:3e:00:00:09",
    }
    bare = {"port": {"port_security_enabled": False, "security_groups": []}}
    assert cloud.refused("alice", "PUT", url, bare) == (409, "AddressPairAndPortSecurityRequired")
    bare["port"]["allowed_address_pairs"] = []
    assert cloud.good("alice", "PUT", url, bare)["port"]["port_security_enabled"] is False
    back = {"port": {"security_groups": [group]}}
    assert cloud.refused("alice", "PUT", url, back) == (400, "PortSecurityAndIPRequiredForSecurityGroups")
    missing = {"port": {"network_id": network, "security_groups": ["nobody"]}}
    assert cloud.refused("alice", "POST", "/ports", missing) == (404, "SecurityGroupNotFound")
    assert cloud.create("alice", "port", network_id=network, security_groups=[])["security_groups"] == []
    open_network, _ = cloud.network(cidr="10.5.0.0/24", port_security_enabled=False)
    open_port = cloud.create("alice", "port", network_id=open_network)
    assert (open_port["port_security_enabled"], open_port["security_groups"]) == (False, [])


def test_dhcp_options(cloud: Cloud) -> None:
    network, _ = cloud.network()
    options = [
        {"opt_name": "bootfile-name", "opt_value": "pxelinux.0"},
        {"opt_name": "150", "opt_value": "10.0.0.9", "ip_version": 4},
    ]
    port = cloud.create("alice", "port", network_id=network, extra_dhcp_opts=options)
    assert [option["opt_name"] for option in port["extra_dhcp_opts"]] == ["bootfile-name", "150"]
    gone = [{"opt_name": "150", "opt_value": None}]
    changed = cloud.update("alice", "port", port["id"], extra_dhcp_opts=gone)
    assert [option["opt_name"] for option in changed["extra_dhcp_opts"]] == ["bootfile-name"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"network_id": None},
        {"mac_address": "fa:16:3e:00:00"},
        {"mac_address": "01:00:5e:00:00:01"},
        {"mac_address": "00:00:00:00:00:00"},
        {"dns_name": "a b"},
        {"dns_name": "x\ny"},
        {"dns_name": "-a"},
        {"name": "x" * 256},
        {"fixed_ips": "10.0.0.1"},
        {"allowed_address_pairs": [{"mac_address": "fa:16:3e:00:00:01"}]},
        {"allowed_address_pairs": [{"ip_address": "10.0.0.1"}] * 2},
        {"allowed_address_pairs": [{"ip_address": f"10.0.0.{n}"} for n in range(11)]},
        {"allowed_address_pairs": [{"ip_address": "10.0.0.300"}]},
        {"binding:vnic_type": "quantum"},
        {"qos": "best"},
        {"extra_dhcp_opts": [{"opt_name": "a", "opt_value": "b", "ip_version": 5}]},
    ],
)
def test_bad_input(cloud: Cloud, wrong: dict[str, object]) -> None:
    network, _ = cloud.network()
    assert cloud.refused("alice", "POST", "/ports", {"port": {"network_id": network, **wrong}})[0] == 400


def test_macs(cloud: Cloud) -> None:
    network, _ = cloud.network()
    mac = "fa:16:3e:00:00:01"
    port = cloud.create("alice", "port", network_id=network, mac_address=mac)
    assert port["mac_address"] == mac
    same = {"port": {"network_id": network, "mac_address": mac}}
    assert cloud.refused("alice", "POST", "/ports", same) == (409, "MacAddressInUse")
    change = {"port": {"mac_address": "fa:16:3e:00:00:02"}}
    assert cloud.refused("alice", "PUT", f"/ports/{port['id']}", change)[0] == 403
    assert cloud.good("admin", "PUT", f"/ports/{port['id']}", change)["port"]["mac_address"].endswith("02")
    cloud.update("admin", "port", port["id"], binding__host_id="c1")
    change["port"]["mac_address"] = mac
    assert cloud.refused("admin", "PUT", f"/ports/{port['id']}", change) == (409, "PortBound")


def test_quota(cloud: Cloud) -> None:
    network, _ = cloud.network()
    cloud.good("admin", "PUT", "/quotas/red", {"quota": {"port": 2}})
    body = {"ports": [{"network_id": network}] * 3}
    assert cloud.refused("alice", "POST", "/ports", body) == (409, "OverQuota")
    assert cloud.get("alice", "/ports")["ports"] == []
    cloud.good("alice", "POST", "/ports", {"ports": [{"network_id": network}] * 2})


def test_null_does_nothing_bad(cloud: Cloud) -> None:
    network, _ = cloud.network()
    port = cloud.create("alice", "port", network_id=network, fixed_ips=None, mac_address=None, security_groups=None)
    assert len(port["fixed_ips"]) == 1
    assert cloud.refused("alice", "PUT", f"/ports/{port['id']}", {"port": {"fixed_ips": None}})[0] == 400
