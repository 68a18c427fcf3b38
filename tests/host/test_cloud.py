"""A real cloud: packets between servers, rules, metadata, kills, and nothing left behind."""

import json
import re
import signal
import subprocess
from typing import Any

import pytest

from tests.machine import Machine, wait_for

pytestmark = pytest.mark.host
USER_DATA = "#!/bin/sh\necho it-ran > /var/log/by-user-data\n"
PING = ("ping", "-n", "-i", "0.05", "-W", "1")


def addresses(cloud: Machine, server: str, *auth: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = cloud.ask(*auth, "server", "show", server)["addresses"]
    return found


def status(cloud: Machine) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in json.loads(cloud.cumulet("where", "--json", check=False))}


def healthy(cloud: Machine) -> bool:
    return all(line["healthy"] for line in status(cloud).values())


@pytest.fixture(scope="module")
def first(cloud: Machine) -> dict[str, str]:
    """The first server: its fixed and its floating address."""
    fixed, floating = addresses(cloud, "first")["private"]
    return {"fixed": fixed, "floating": floating}


@pytest.fixture(scope="module")
def second(cloud: Machine) -> str:
    """Another server on the same network, made by the client, with user data; its fixed address."""
    cloud.run("tee", "/run/user-data", stdin=USER_DATA)
    options = ("--image", "cirros", "--flavor", "m1.tiny", "--network", "private", "--key-name", "cumulet")
    groups = ("--security-group", "default", "--security-group", "cumulet-ssh")
    cloud.openstack("server", "create", *options, *groups, "--user-data", "/run/user-data", "--wait", "second")
    wait_for(lambda: "BOOT-DONE" in cloud.openstack("console", "log", "show", "second"), 180, "second server")
    return addresses(cloud, "second")["private"][0]


def test_the_first_server_answers_ssh_by_its_floating_ip(cloud: Machine) -> None:
    assert cloud.ssh("first", "hostname").strip() == "first"
    assert cloud.ssh("first", "sudo", "id", "-u").strip() == "0"


def test_servers_of_one_network_reach_each_other_by_address_and_by_name(cloud: Machine, second: str) -> None:
    assert " 0% packet loss" in cloud.ssh("first", "ping", "-c", "3", "-w", "10", second)
    assert " 0% packet loss" in cloud.ssh("first", "ping", "-c", "3", "-w", "10", "second")


def test_user_data_ran(cloud: Machine, second: str) -> None:
    floating = cloud.ask("floating", "ip", "create", "public")["floating_ip_address"]
    cloud.openstack("server", "add", "floating", "ip", "second", floating)
    wait_for(lambda: "it-ran" in cloud.ssh("second", "cat", "/var/log/by-user-data", check=False), 30, "user data")


def test_another_project_is_another_world(cloud: Machine, first: dict[str, str]) -> None:
    """The same addresses may be used twice, and no frame crosses."""
    cloud.openstack("project", "create", "other")
    cloud.openstack("user", "create", "--password", "other-12345", "--project", "other", "other")
    cloud.openstack("role", "add", "--user", "other", "--project", "other", "member")
    auth = ("--os-cloud", "", "--os-auth-url", "http://127.0.0.1:5000/v3", "--os-username", "other",
            "--os-password", "other-12345", "--os-project-name", "other", "--os-user-domain-id", "default",
            "--os-project-domain-id", "default", "--os-identity-api-version", "3")  # fmt: skip
    cloud.openstack(*auth, "network", "create", "theirs")
    prefix = first["fixed"].rsplit(".", 1)[0]
    cloud.openstack(*auth, "subnet", "create", "--network", "theirs", "--subnet-range", f"{prefix}.0/24", "theirs")
    third = f"{prefix}.200"
    cloud.openstack(*auth, "port", "create", "--network", "theirs", "--fixed-ip", f"ip-address={third}", "p3")
    options = ("--image", "cirros", "--flavor", "m1.tiny", "--port", "p3")
    cloud.openstack(*auth, "server", "create", *options, "--wait", "third")
    wait_for(lambda: "BOOT-DONE" in cloud.openstack(*auth, "console", "log", "show", "third"), 180, "third server")
    assert "100% packet loss" in cloud.ssh("first", "ping", "-c", "3", "-w", "4", third, check=False)
    assert "first" not in cloud.openstack(*auth, "server", "list")
    cloud.openstack(*auth, "server", "delete", "--wait", "third")


def test_a_rule_opens_and_closes_a_port(cloud: Machine, first: dict[str, str]) -> None:
    cloud.ssh("first", "sh", "-c", "'nc -lk -p 8080 -e echo hello >/dev/null 2>&1 &'")
    probe = ("bash", "-c", f"exec 3<>/dev/tcp/{first['floating']}/8080; timeout 2 cat <&3")

    def answers() -> bool:
        return "hello" in cloud.run("timeout", "3", *probe, check=False)

    assert not answers()
    options = ("--proto", "tcp", "--dst-port", "8080", "cumulet-ssh")
    rule = cloud.ask("security", "group", "rule", "create", *options)["id"]
    wait_for(answers, 10, "open port")
    cloud.openstack("security", "group", "rule", "delete", rule)
    wait_for(lambda: not answers(), 10, "closed port")


def test_metadata_is_ones_own_whatever_a_guest_says(cloud: Machine, second: str) -> None:
    mine = cloud.ask("server", "show", "first")["id"]
    theirs = cloud.ask("server", "show", "second")["id"]
    forged = [
        f"X-Instance-ID: {theirs}",
        f"X-Forwarded-For: {second}",
        "X-Tenant-ID: x",
        "X-Instance-ID-Signature: y",
    ]
    headers = " ".join(f"-H '{header}'" for header in forged)
    url = "http://169.254.169.254/openstack/latest/meta_data.json"
    assert json.loads(cloud.ssh("first", f"curl -s {headers} {url}"))["uuid"] == mine
    direct = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"X-Instance-ID: {theirs}",
              "http://127.0.0.1:8775/openstack/latest/meta_data.json")  # fmt: skip
    assert cloud.run(*direct).strip() in ("400", "403")


def lost(process: subprocess.Popen[str], cloud: Machine) -> int:
    """End a running ping; how many of its packets were lost."""
    cloud.run("pkill", "-INT", "-x", "ping")
    text, _ = process.communicate(timeout=20)
    sent, received = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", text)[0])
    assert sent > 20
    return sent - received


def test_kill_each_service_and_no_packet_is_lost(cloud: Machine, first: dict[str, str]) -> None:
    wait_for(lambda: healthy(cloud), 60, "healthy cloud")
    members = [line for line in status(cloud).values() if line["role"] != "part"]
    ping = cloud.start(*PING, first["floating"])
    for line in members:
        cloud.run("kill", "-9", str(line["pid"]))
        wait_for(lambda line=line: status(cloud)[line["name"]]["pid"] != line["pid"], 30, line["name"])  # type: ignore[misc]
        wait_for(lambda: healthy(cloud), 60, f"health after {line['name']}")
    cloud.run("kill", "-9", str(status(cloud)["libvirtd"]["pid"]))
    cloud.run("pkill", "-9", "-f", "cumulet.cli.main.*node")
    wait_for(lambda: healthy(cloud), 90, "health after libvirtd and the parent")
    assert lost(ping, cloud) == 0
    assert cloud.ssh("first", "hostname").strip() == "first"


def test_open_vswitch_is_repaired(cloud: Machine, first: dict[str, str]) -> None:
    ping = cloud.start(*PING, first["floating"])
    for part in ("ovs-vswitchd", "ovsdb-server"):
        cloud.run("kill", "-9", str(status(cloud)[part]["pid"]))
        wait_for(lambda: healthy(cloud), 60, f"health after {part}")
        wait_for(
            lambda: "1 received" in cloud.run("ping", "-c", "1", "-W", "1", first["floating"], check=False),
            20,
            part,
        )
    assert lost(ping, cloud) < 20 * 10
    assert cloud.ssh("first", "hostname").strip() == "first"


def test_why_and_doctor_have_nothing_to_complain_of(cloud: Machine, first: dict[str, str]) -> None:
    story = json.loads(cloud.cumulet("why", "first", "--json"))[0]
    assert story["kind"] == "server"
    assert story["waiting"] == []
    findings = json.loads(cloud.cumulet("doctor", "--json", check=False))
    assert [finding for finding in findings if finding["level"] == "wrong"] == []
    assert "floating ip" in cloud.cumulet("why", first["floating"])


def test_down_leaves_nothing_and_up_brings_the_same_cloud_back(cloud: Machine) -> None:
    cloud.cumulet("down")
    assert cloud.run("ip", "-br", "link").split()[0] == "lo"
    assert len(cloud.run("ip", "-br", "link").splitlines()) == 1
    assert cloud.run("ls", "/run/netns").strip() == ""
    assert cloud.run("nft", "list", "tables").strip() == ""
    left = cloud.run("ps", "-eo", "args", "--no-headers").splitlines()
    assert [
        line for line in left if re.search("cumulet|qemu|libvirt|ovs|dnsmasq", line) and "isolated" not in line
    ] == []
    cloud.cumulet("up", "--yes")
    assert cloud.ssh("first", "hostname").strip() == "first"


def test_after_a_power_cut_the_servers_come_back(cloud: Machine, second: str) -> None:
    cloud.openstack("server", "stop", "second")
    wait_for(lambda: cloud.ask("server", "show", "second")["status"] == "SHUTOFF", 90, "stopped server")
    cloud.power_cut()
    cloud.cumulet("up", "--yes")
    assert cloud.ssh("first", "hostname").strip() == "first"
    assert cloud.ask("server", "show", "second")["status"] == "SHUTOFF"


def test_deleting_everything_leaves_nothing_on_the_host(cloud: Machine) -> None:
    cloud.openstack("server", "delete", "--wait", "second")
    cloud.openstack("server", "delete", "--wait", "first")
    assert cloud.run("pgrep", "-c", "qemu", check=False).strip() == "0"
    assert cloud.run("ls", "/var/lib/cumulet/servers").strip() == ""
    assert (
        cloud.run("ovs-vsctl", "--db=unix:/run/cumulet/openvswitch/db.sock", "list-ports", "br-int").count("tap")
        <= 6
    )
    findings = json.loads(cloud.cumulet("doctor", "--json", check=False))
    assert [finding for finding in findings if finding["level"] == "wrong"] == []


def test_the_machine_stops_by_a_signal_to_the_parent(cloud: Machine) -> None:
    """SIGTERM ends the services in good order; the switch and libvirtd go on; up takes over again."""
    parent = json.loads(cloud.run("cat", "/run/cumulet/node.json"))["pid"]
    switch = status(cloud)["ovs-vswitchd"]["pid"]
    cloud.run("kill", f"-{signal.SIGTERM}", str(parent))
    wait_for(
        lambda: "No such file" in cloud.run("cat", "/run/cumulet/node.json", check=False), 40, "end of the parent"
    )
    cloud.cumulet("up", "--yes", "--no-server")
    assert status(cloud)["ovs-vswitchd"]["pid"] == switch
