"""The unmodified ``openstack`` client against a running cloud: judged by its exit code and by what it prints."""

from pathlib import Path

import pytest

from tests.machine import Machine, wait_for

pytestmark = pytest.mark.compat


def names(rows: list[dict[str, str]]) -> set[str]:
    return {row["Name"] for row in rows}


def test_identity(cloud: Machine) -> None:
    token = cloud.ask("token", "issue")
    assert token["id"].startswith("gAAAA")
    catalog = cloud.ask("catalog", "list")
    assert {service["Type"] for service in catalog} >= {"identity", "image", "network", "compute"}
    assert names(cloud.ask("user", "list")) >= {"admin"}
    project = cloud.ask("project", "create", "p1")
    cloud.openstack("user", "create", "--password", "x-12345", "--project", "p1", "u1")
    cloud.openstack("role", "add", "--user", "u1", "--project", "p1", "member")
    assert cloud.ask("project", "show", "p1")["id"] == project["id"]
    assert names(cloud.ask("role", "list")) >= {"admin", "manager", "member", "reader"}
    cloud.openstack("user", "delete", "u1")
    cloud.openstack("project", "delete", "p1")
    assert "No Project found" in cloud.openstack("project", "show", "p1", check=False)


def test_images(cloud: Machine, tmp_path: Path) -> None:
    data = tmp_path / "data.raw"
    data.write_bytes(bytes(range(256)) * 4096)
    options = ("--disk-format", "raw", "--container-format", "bare")
    image = cloud.ask("image", "create", *options, "--file", str(data), "img")
    assert image["status"] == "active"
    assert image["size"] == data.stat().st_size
    assert names(cloud.ask("image", "list")) >= {"img", "cirros"}
    assert cloud.ask("image", "show", "img")["id"] == image["id"]
    copy = tmp_path / "copy.raw"
    cloud.openstack("image", "save", "--file", str(copy), "img")
    assert copy.read_bytes() == data.read_bytes()
    cloud.openstack("image", "delete", "img")
    assert "img" not in names(cloud.ask("image", "list"))


def test_networks(cloud: Machine) -> None:
    network = cloud.ask("network", "create", "n1")
    subnet = cloud.ask("subnet", "create", "--network", "n1", "--subnet-range", "10.9.0.0/24", "s1")
    assert subnet["gateway_ip"] == "10.9.0.1"
    cloud.openstack("router", "create", "r1")
    cloud.openstack("router", "set", "--external-gateway", "public", "r1")
    cloud.openstack("router", "add", "subnet", "r1", "s1")
    port = cloud.ask("port", "create", "--network", "n1", "port1")
    assert port["fixed_ips"][0]["ip_address"].startswith("10.9.0.")
    assert names(cloud.ask("port", "list", "--network", "n1")) >= {"port1"}
    assert cloud.ask("network", "show", "n1")["id"] == network["id"]
    assert cloud.ask("subnet", "show", "s1")["cidr"] == "10.9.0.0/24"
    assert cloud.ask("router", "show", "r1")["external_gateway_info"]["external_fixed_ips"]
    assert "n1" in names(cloud.ask("network", "list"))
    assert "s1" in names(cloud.ask("subnet", "list"))
    assert "r1" in names(cloud.ask("router", "list"))
    cloud.openstack("port", "delete", "port1")
    cloud.openstack("router", "remove", "subnet", "r1", "s1")
    cloud.openstack("router", "delete", "r1")
    cloud.openstack("subnet", "delete", "s1")
    cloud.openstack("network", "delete", "n1")
    assert "n1" not in names(cloud.ask("network", "list"))


def test_security_groups(cloud: Machine) -> None:
    cloud.openstack("security", "group", "create", "sg1")
    rule = cloud.ask("security", "group", "rule", "create", "--proto", "tcp", "--dst-port", "22", "sg1")
    assert rule["port_range_min"] == 22
    rules = cloud.ask("security", "group", "rule", "list", "sg1")
    assert rule["id"] in {row["ID"] for row in rules}
    assert names(cloud.ask("security", "group", "list")) >= {"sg1"}
    cloud.openstack("security", "group", "delete", "sg1")


def test_a_server_from_create_to_delete(cloud: Machine, tmp_path: Path) -> None:
    key = tmp_path / "key.pub"
    cloud.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key.with_suffix("")))
    cloud.openstack("keypair", "create", "--public-key", str(key), "kp")
    cloud.openstack("flavor", "create", "--ram", "192", "--disk", "1", "--vcpus", "1", "f1")
    assert "f1" in names(cloud.ask("flavor", "list"))
    options = ("--image", "cirros", "--flavor", "f1", "--network", "private", "--key-name", "kp")
    made = cloud.ask("server", "create", *options, "--security-group", "default", "--wait", "vm1")
    assert made["status"] == "ACTIVE"
    assert made["addresses"]["private"]
    assert "vm1" in names(cloud.ask("server", "list"))
    floating = cloud.ask("floating", "ip", "create", "public")["floating_ip_address"]
    cloud.openstack("server", "add", "floating", "ip", "vm1", floating)
    assert floating in str(cloud.ask("server", "show", "vm1")["addresses"])
    wait_for(lambda: "BOOT-DONE" in cloud.openstack("console", "log", "show", "vm1"), 120, "console log")
    cloud.openstack("server", "stop", "vm1")
    wait_for(lambda: cloud.ask("server", "show", "vm1")["status"] == "SHUTOFF", 90, "stopped server")
    cloud.openstack("server", "start", "vm1")
    wait_for(lambda: cloud.ask("server", "show", "vm1")["status"] == "ACTIVE", 60, "started server")
    cloud.openstack("server", "reboot", "--hard", "--wait", "vm1")
    events = cloud.ask("server", "event", "list", "vm1")
    assert [event["Action"] for event in events] == ["reboot", "start", "stop", "create"]
    cloud.openstack("server", "delete", "--wait", "vm1")
    assert "vm1" not in names(cloud.ask("server", "list"))
    cloud.openstack("floating", "ip", "delete", floating)
    cloud.openstack("flavor", "delete", "f1")
    cloud.openstack("keypair", "delete", "kp")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("server", "show", "nothing"), "No Server found for nothing"),
        (("network", "show", "nothing"), "No Network found for nothing"),
        (("image", "show", "nothing"), "No Image found for nothing"),
    ],
)
def test_what_does_not_exist(cloud: Machine, words: tuple[str, ...], expected: str) -> None:
    assert expected in cloud.openstack(*words, check=False)
