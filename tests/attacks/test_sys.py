"""A running cloud as its machine's other users see it: modes, sockets, command lines, logs (SYS-1, LOG-1)."""

import base64
import json
import re
import sys
from pathlib import Path

import pytest

from cumulet.cli.record import TITLE
from cumulet.core.secrets import host_token
from cumulet.services import SERVICES
from tests.machine import BIN, Machine, wait_for

pytestmark = pytest.mark.compat

PLACES = ("/etc/cumulet", "/var/lib/cumulet", "/run/cumulet", "/var/log/cumulet")
STRANGER = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--")
SERVICE = ("setpriv", "--reuid=cumulet", "--regid=cumulet", "--clear-groups", "--")
FOR_EVERYBODY = (
    "/etc/cumulet/cumulet.toml", "/var/lib/cumulet/guest/", "/var/lib/cumulet/libvirt/", "/run/cumulet/libvirt/",
    "/run/cumulet/openvswitch/", "/run/cumulet/parts/", "/run/cumulet/owned/", "/run/cumulet/node",
    "/run/cumulet/boot_id", "/run/cumulet/guests.epoch", "/run/cumulet/ip_forward", "/run/cumulet/keeper",
)  # fmt: skip
"""Readable by all, and nothing to hide: the configuration, the public guest image, pid files, what is where."""


def found(cloud: Machine, who: tuple[str, ...], *tests: str) -> list[str]:
    text = cloud.run(*who, "find", *PLACES, *tests, "-print", check=False)
    return [line for line in text.splitlines() if line.startswith("/") and "Permission denied" not in line]


def secrets_of(cloud: Machine) -> dict[str, str]:
    """What must be nowhere else: by name."""
    known: dict[str, str] = json.loads(cloud.run("cat", "/etc/cumulet/secrets.json"))
    known["authority"] = known["authority"].partition("PRIVATE KEY-----\n")[2].splitlines()[0]  # of its key
    assert all(known.values())
    keys = cloud.run("bash", "-c", "cat /etc/cumulet/fernet-keys/*").split()
    hosts = {"host token": host_token(known["host_secret"], "node1")}
    return {**known, **hosts, **{f"key {number}": key for number, key in enumerate(keys)}}


def openstack(cloud: Machine, *commands: str) -> str:
    """Several commands of the client in one process: starting it takes longer than what it does."""
    return cloud.run(str(BIN / "openstack"), stdin="\n".join(commands) + "\n", check=False)


def test_strangers_write_nothing(cloud: Machine) -> None:
    """No file, no directory, no socket; links are what they point to."""
    assert found(cloud, STRANGER, "!", "-type", "l", "-writable") == []
    assert found(cloud, (), "!", "-type", "l", "-perm", "-o=w") == []


def test_strangers_read_nothing_that_is_anybodys(cloud: Machine) -> None:
    readable = found(cloud, STRANGER, "-type", "f", "-readable")
    assert [path for path in readable if not path.startswith(FOR_EVERYBODY)] == []
    for path in readable:
        assert not path.endswith((".qcow2.part", "/disk", "config.iso", "console.log", ".log")), path
        assert ".sqlite" not in path
    for secret in secrets_of(cloud).values():
        inside = cloud.run("grep", "-rlF", "--", secret, *PLACES, check=False).split()
        assert not set(inside) & set(readable)


def test_secrets_have_one_reader(cloud: Machine) -> None:
    """Mode 0600 wherever one is; each in as few files as it must."""
    for name, secret in secrets_of(cloud).items():
        for path in cloud.run("grep", "-rlF", "--", secret, *PLACES, "/run/root", check=False).split():
            mode, owner = cloud.run("stat", "-c", "%a %U", path).split()
            assert (mode, owner in ("root", "cumulet")) == ("600", True), (name, path, mode, owner)
            assert Path(path).name in ("secrets.json", "openrc", "clouds.yaml", *"0123456789"), (name, path)


def test_images_and_disks_are_not_for_everybody(cloud: Machine) -> None:
    for place in ("images", "images-cache", "servers", "db"):
        files = cloud.run("find", f"/var/lib/cumulet/{place}", "-type", "f", "-perm", "/o=rwx", check=False)
        assert files == "", place
    for path in cloud.run("find", "/var/lib/cumulet/servers", "-type", "f").split():
        assert cloud.run("stat", "-c", "%a", path).strip() == "600", path


def test_who_runs_as_whom(cloud: Machine) -> None:
    """Root: the agents and the parts they drive.  APIs, guests and what guests speak to: not."""
    rows = [line.split(None, 1) for line in cloud.run("ps", "-eo", "user:20,args", "--no-headers").splitlines()]
    users = {words.split()[0].rpartition("/")[2]: user for user, words in rows}
    for service in (
        "keystone", "glance-api", "glance-registry", "neutron-server", "nova-api", "nova-api-metadata",
        "nova-scheduler", "nova-conductor", "nova-consoleauth", "nova-novncproxy", "cumulet-metrics",
    ):  # fmt: skip
        assert users[service] == "cumulet", service
    assert users["qemu-system-x86_64"] == "libvirt-qemu"
    assert users["dnsmasq"] in ("dnsmasq", "nobody")


def test_each_service_listens_for_itself_only(cloud: Machine) -> None:
    """Who held another service's socket could answer in its name.  The parent holds them all."""
    table = [line.split() for line in cloud.run("cat", "/proc/net/tcp").splitlines()[1:]]
    ports = {f"socket:[{row[9]}]": int(row[1].partition(":")[2], 16) for row in table if row[3] == "0A"}
    held: dict[int, set[str]] = {}
    for line in cloud.run("bash", "-c", "ls -l /proc/[0-9]*/fd/* 2> /dev/null", check=False).splitlines():
        path, _, target = line.partition(" -> ")
        if target in ports:
            pid = path.split("/proc/")[1].partition("/")[0]
            name = cloud.run("ps", "-o", "args=", "-p", pid, check=False).strip()
            held.setdefault(ports[target], set()).add(name)
    services = {service.port: service.name for service in SERVICES if service.port in held}
    assert {"keystone", "glance-api", "nova-api", "neutron-server"} <= set(services.values())
    for port, name in services.items():
        assert held[port] <= {name, TITLE}, (name, held[port])


def test_command_lines_and_environments_hold_no_secret(cloud: Machine) -> None:
    """Anybody may read command lines; environments are of whoever started the cloud, and go on for ever."""
    token = cloud.ask("token", "issue")["id"]
    script = (
        "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; tr '\\0' ' ' < $p/environ; echo; done 2> /dev/null"
    )
    text = cloud.run("bash", "-c", script, check=False)
    assert "keystone" in text
    assert "dnsmasq --conf-file" in text
    for name, secret in {**secrets_of(cloud), "token": token}.items():
        assert secret not in text, name


def test_logs_hold_no_secret(cloud: Machine, tmp_path: Path) -> None:
    """A story with canaries, told by the unmodified client; then every log, and the database's notifications."""
    data = tmp_path / "user-data"
    data.write_text("canary-user-data-7")
    cloud.openstack("--os-password", "canary-wrong-7", "token", "issue", check=False)
    options = "--image cirros --flavor m1.tiny --nic none --config-drive True --key-name canary"
    said = openstack(
        cloud,
        "user create --password canary-password-7 canary",
        "keypair create canary",
        "token issue -f value -c id",
        f"server create {options} --password canary-adminpass-7 --user-data {data} canary",
    )
    token = re.findall(r"gAAAA\S+", said)[0]
    key = re.findall(r"^[A-Za-z0-9+/]{64,70}$", said, re.MULTILINE)[2]
    drive = "ls /var/lib/cumulet/servers/*/config.iso"
    wait_for(lambda: cloud.run("bash", "-c", drive, check=False)[:1] == "/", 120, "config drive")
    openstack(cloud, "server delete --wait canary", "keypair delete canary", "user delete canary")
    canaries = {
        "password": "canary-password-7", "wrong password": "canary-wrong-7", "admin pass": "canary-adminpass-7",
        "user data": "canary-user-data-7", "user data, encoded": base64.b64encode(b"canary-user-data-7").decode(),
        "token": token, "private key": key, **secrets_of(cloud),
    }  # fmt: skip
    for name, secret in canaries.items():
        assert cloud.run("grep", "-rlF", "--", secret, "/var/log/cumulet", check=False) == "", name
    query = "sqlite3.connect(sys.argv[1]).execute('select * from notifications').fetchall()"
    told = cloud.run(
        sys.executable, "-c", f"import sqlite3, sys; print({query})", "/var/lib/cumulet/db/cumulet.sqlite"
    )
    assert "compute.instance.create.end" in told
    for name, secret in canaries.items():
        assert secret not in told, name


def test_services_own_nothing_that_root_trusts(cloud: Machine) -> None:
    """Who owns a directory may put another file in a file's place: root must not read its orders from there."""
    for path in ("/etc/cumulet", "/var/lib/cumulet", "/run/cumulet", "/etc/cumulet/policy.d"):
        assert cloud.run("stat", "-c", "%U", path).strip() == "root", path
    mine = (
        "/etc/cumulet/fernet-keys", "/etc/cumulet/credential-keys", "/var/lib/cumulet/db",
        "/var/lib/cumulet/images", "/run/cumulet/bus", "/run/cumulet/status", "/var/log/cumulet",
        "/etc/cumulet/secrets.json",
    )  # fmt: skip
    writable = found(cloud, SERVICE, "!", "-type", "l", "-writable")
    assert [path for path in writable if not path.startswith(mine)] == []
