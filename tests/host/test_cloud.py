"""A real cloud: packets between servers, rules, metadata, kills, and nothing left behind."""

import json
import re
import signal
import subprocess
from typing import Any

import pytest

from tests.machine import BIN, HOME, Machine, wait_for

pytestmark = pytest.mark.host
USER_DATA = "#!/bin/sh\necho it-ran > /var/log/by-user-data\n"
TAKEN = f"""
python3 -m http.server 9696 --bind 127.0.0.1 > /dev/null 2>&1 & taker=$!
until ss -ltn | grep -q :9696; do sleep 0.1; done
{HOME}/cumulet up --yes
kill $taker; wait
"""
"""``up`` while another program has a port that a service needs."""
PING = ("ping", "-n", "-i", "0.05", "-W", "1")


def addresses(cloud: Machine, server: str, *auth: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = cloud.ask(*auth, "server", "show", server)["addresses"]
    return found


def status(cloud: Machine) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in json.loads(cloud.cumulet("where", "--json", check=False))}


def pid_in(cloud: Machine, file: str) -> str:
    """The number in a pid file of the run directory; empty if there is none."""
    words = cloud.run("cat", f"/run/cumulet/{file}", check=False).split()
    return words[0] if words and words[0].isdigit() else ""


def wrong(cloud: Machine) -> list[dict[str, str]]:
    findings = json.loads(cloud.cumulet("doctor", "--json", check=False))
    return [finding for finding in findings if finding["level"] == "wrong"]


def left_behind(cloud: Machine) -> list[str]:
    """Whatever a cloud that is down must not leave."""
    left = [line.split()[0] for line in cloud.run("ip", "-br", "link").splitlines()]
    left += cloud.run("ls", "/run/netns").split()
    left += cloud.run("nft", "list", "tables").splitlines()
    left += [line for line in cloud.run("cat", "/proc/self/mounts").splitlines() if "cumulet" in line]
    processes = cloud.run("ps", "-eo", "args", "--no-headers").splitlines()
    ours = re.compile("cumulet|qemu|libvirt|ovs|dnsmasq|keystone|glance|neutron|nova")
    left += [line for line in processes if ours.search(line) and "isolated" not in line]
    assert cloud.run("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "0"
    return [thing for thing in left if thing != "lo"]


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
    former, parts = (
        pid_in(cloud, "node.pid"),
        [line["pid"] for line in status(cloud).values() if line["role"] == "part"],
    )
    cloud.run("kill", "-9", former)
    wait_for(lambda: pid_in(cloud, "node.pid") not in ("", former), 15, "a new parent")
    wait_for(lambda: healthy(cloud), 90, "health after libvirtd and the parent")
    adopted = [line["pid"] for line in status(cloud).values() if line["role"] == "part"]
    assert len(set(parts) & set(adopted)) >= 2, "Open vSwitch is adopted, not started twice"
    assert cloud.run("pgrep", "-c", "-x", "keystone").strip() == "1"
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
    assert wrong(cloud) == []
    assert "floating ip" in cloud.cumulet("why", first["floating"])


def test_why_names_the_agent_that_keeps_a_server_waiting(cloud: Machine) -> None:
    agent = str(status(cloud)["neutron-openvswitch-agent"]["pid"])
    cloud.run("kill", "-STOP", agent)
    try:
        options = ("--image", "cirros", "--flavor", "m1.nano", "--network", "private")
        cloud.openstack("server", "create", *options, "held")
        wait_for(lambda: "waits for ports to be wired" in cloud.cumulet("why", "held"), 30, "nova-compute's word")
        shown = cloud.cumulet("why", "held")
        assert "create, under way, started " in shown
        assert "neutron-openvswitch-agent on node1 IS SILENT: does not answer" in shown
        assert any("neutron-openvswitch-agent" in finding["found"] for finding in wrong(cloud))
    finally:
        cloud.run("kill", "-CONT", agent)
    wait_for(lambda: cloud.ask("server", "show", "held")["status"] == "ACTIVE", 90, "held server")
    cloud.openstack("server", "delete", "--wait", "held")


def test_doctor_finds_what_belongs_to_nothing(cloud: Machine) -> None:
    """A namespace marked ours and a port of a server that is gone; a stranger's namespace is let be."""
    stray = "qrouter-11111111-1111-4111-8111-111111111111"
    cloud.run("ip", "netns", "add", stray)
    cloud.run("ip", "netns", "add", "qrouter-foreign")
    cloud.run("touch", f"/run/cumulet/owned/netns/{stray}")
    port = cloud.ask("port", "create", "--network", "private", "orphan")["id"]
    change = f"update ports set server_id = 'gone' where id = '{port}'"
    cloud.run(
        str(BIN / "python"),
        "-c",
        f"""
import sqlite3
connection = sqlite3.connect("/var/lib/cumulet/db/cumulet.sqlite", timeout=20)
connection.execute({change!r})
connection.commit()""",
    )
    found = [finding["found"] for finding in wrong(cloud)]
    assert [text for text in found if stray in text]
    assert [text for text in found if port in text]
    assert len(found) == 2, found
    cloud.run("rm", f"/run/cumulet/owned/netns/{stray}")
    for name in (stray, "qrouter-foreign"):
        cloud.run("ip", "netns", "delete", name)
    cloud.run(
        str(BIN / "python"),
        "-c",
        f"""
import sqlite3
connection = sqlite3.connect("/var/lib/cumulet/db/cumulet.sqlite", timeout=20)
connection.execute({change.replace("'gone'", "null")!r})
connection.commit()""",
    )
    cloud.openstack("port", "delete", "orphan")
    assert wrong(cloud) == []


def test_up_again_changes_nothing_and_two_at_once_take_turns(cloud: Machine) -> None:
    before = {name: line["pid"] for name, line in status(cloud).items()}
    both = [cloud.start(str(HOME / "cumulet"), "up", "--yes") for _ in range(2)]
    texts = [one.communicate(timeout=120)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], texts
    assert all("services are up already" in text for text in texts)
    assert {name: line["pid"] for name, line in status(cloud).items()} == before


def test_errors_are_one_line(cloud: Machine) -> None:
    for words, text in (
        (("launch", "x", "--image", "none"), "there is no image 'none'"),
        (("launch", "x", "--flavor", "none"), "there is no flavor 'none'"),
        (("launch", "x", "--network", "none"), "there is no network 'none'"),
        (("ssh", "none"), "there is no server 'none'"),
        (("why", "none"), "there is no server, port, network, router or floating IP 'none'"),
        (("run", "keystone"), "keystone runs on this node already"),
    ):
        assert text in cloud.cumulet(*words, check=False)
        assert len(cloud.cumulet(*words, check=False).splitlines()) == 1
    assert "answers ssh" in cloud.cumulet("launch", "first"), "one that is there is used"
    assert cloud.ssh("first", "echo", "--", "x").strip() == "-- x"


def test_down_leaves_nothing_and_up_brings_the_same_cloud_back(cloud: Machine) -> None:
    cloud.cumulet("down")
    assert left_behind(cloud) == []
    assert cloud.cumulet("down") == "the cloud is down already\n"
    cloud.cumulet("up", "--yes")
    assert cloud.ssh("first", "hostname").strip() == "first"


def test_down_after_everything_was_killed_leaves_nothing_but_what_is_a_strangers(cloud: Machine) -> None:
    """Not even the switch and libvirtd live; an operator's own namespace, bridge, tap and table do."""
    cloud.run("ip", "netns", "add", "qrouter-foreign")
    cloud.run("ip", "link", "add", "foreign0", "type", "bridge")
    cloud.run("ip", "tuntap", "add", "tap0", "mode", "tap")
    cloud.run("nft", "add", "table", "inet", "foreign")
    parts = [str(line["pid"]) for line in status(cloud).values() if line["role"] == "part"]
    cloud.run("kill", "-9", pid_in(cloud, "keeper.pid"), pid_in(cloud, "node.pid"), *parts)
    cloud.cumulet("down", "--now")
    assert left_behind(cloud) == ["foreign0", "tap0", "qrouter-foreign", "table inet foreign"]
    cloud.run("ip", "netns", "delete", "qrouter-foreign")
    for device in ("foreign0", "tap0"):
        cloud.run("ip", "link", "delete", device)
    cloud.run("nft", "delete", "table", "inet", "foreign")
    assert "python3 (pid " in cloud.run("bash", "-c", TAKEN, check=False)
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
