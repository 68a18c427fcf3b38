"""``cumulet launch`` and ``cumulet ssh``: a server with all that one needs to get into it."""

import argparse
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cumulet.cli import lock, status
from cumulet.cli.cloud import Cloud, Refused, wait
from cumulet.core import config as configuration
from cumulet.core.config import Config

KEY = "cumulet"
GROUP = "cumulet-ssh"
ACTIVE_SECONDS, SSH_SECONDS = 120.0, 180.0


@dataclass(frozen=True)
class Launched:
    name: str
    status: str
    floating_ip: str


def main(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    status.require_running(config, "launch", "it reads the administrator's password")
    server = ensure(Cloud(config), config, options.name, options.image, options.flavor, options.network)
    print(f"{server.name} is {server.status} and answers ssh on {server.floating_ip}: cumulet ssh {server.name}")
    return 0


def ssh(options: argparse.Namespace) -> int:
    """Become ssh; its exit code is the command's."""
    config = configuration.load(options.config)
    status.require_running(config, "ssh", "it reads the administrator's password and our ssh key")
    cloud = Cloud(config)
    server = cloud.find("compute", "/servers/detail", options.name)
    if server is None:
        sys.exit(f"there is no server {options.name!r}: openstack server list --all-projects shows all")
    address = _floating_ip(cloud, server)
    if not address:
        sys.exit(f"server {options.name} has no floating IP: 'cumulet launch {options.name}' gives it one")
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    os.execvp("ssh", [*ssh_command(_disk(cloud, server["id"]), address), *words])


def _disk(cloud: Cloud, server_id: str) -> str:
    """A name for the server's disk: its latest rebuild's, and its own if there was none."""
    actions = cloud.get("compute", f"/servers/{server_id}/os-instance-actions")["instanceActions"]
    rebuilds = [action["request_id"] for action in actions if action["action"] == "rebuild"]
    return str(rebuilds[0]) if rebuilds else server_id


def ssh_command(disk: str, address: str) -> list[str]:
    """ssh with our key.  The host's key is remembered under its disk's name: addresses change hands."""
    known = _home() / "known_hosts.cumulet"
    return [
        "ssh", "-i", str(private_key()), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=accept-new",
        "-o", f"UserKnownHostsFile={known}", "-o", f"HostKeyAlias={disk}", "-o", "LogLevel=ERROR",
        "-o", "ConnectTimeout=10", f"cirros@{address}",
    ]  # fmt: skip


def ensure(cloud: Cloud, config: Config, name: str, image: str, flavor: str, network: str) -> Launched:
    """A server called ``name`` that answers ssh on a floating IP; one that is there already is used."""
    known = cloud.find("compute", "/servers/detail", name) or create(cloud, name, image, flavor, network)
    if known.get("status") == "SHUTOFF" and known["OS-EXT-STS:task_state"] is None:
        cloud.post("compute", f"/servers/{known['id']}/action", {"os-start": None})
    server = wait(f"server {name}", ACTIVE_SECONDS, lambda: _active(cloud, known["id"]))
    address = _floating_ip(cloud, server) or _associate(cloud, server)
    wait(f"server {name}", SSH_SECONDS, lambda: _answers(address))
    return Launched(name, server["status"], address)


def private_key() -> Path:
    """Our ssh key, made if there is none.  Its public half is there before it is."""
    path = _home() / "cumulet_ed25519"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with lock.held(path.with_suffix(".lock"), "launch"):
            _make_key(path)
    return path


def _make_key(path: Path) -> None:
    if not path.exists():  # somebody else may have made it meanwhile
        partial = path.with_name(f"{path.name}.new")
        partial.unlink(missing_ok=True)
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", KEY, "-f", str(partial)]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        partial.with_suffix(".new.pub").rename(path.with_suffix(".pub"))
        partial.rename(path)


def _home() -> Path:
    return Path.home() / ".ssh"


def create(cloud: Cloud, name: str, image: str, flavor: str, network: str) -> dict[str, Any]:
    """Order a new server with our key that ssh may reach.  Several may do so at once."""
    public_key = private_key().with_suffix(".pub").read_text().strip()
    wish = {"keypair": {"name": KEY, "public_key": public_key}}
    known = cloud.find("compute", "/os-keypairs", KEY)
    if known is not None and known["public_key"].split()[:2] != public_key.split()[:2]:
        cloud.delete("compute", f"/os-keypairs/{KEY}")
    cloud.ensure("compute", "/os-keypairs", KEY, lambda: wish)
    body = {
        "name": name,
        "imageRef": _id(cloud, "image", "/v2/images", image),
        "flavorRef": _id(cloud, "compute", "/flavors", flavor),
        "networks": [{"uuid": _id(cloud, "network", "/v2.0/networks", network)}],
        "key_name": KEY,
        "security_groups": [{"name": "default"}, {"name": _security_group(cloud)}],
    }
    found: dict[str, Any] = cloud.post("compute", "/servers", {"server": body})["server"]
    return found


def _security_group(cloud: Cloud) -> str:
    """The id of a group that lets ssh and ping in.

    Names of groups are not unique: two launches at once may make one each.  Of one group both may write the rules.
    """
    project = cloud.get("identity", "/auth/projects")["projects"][0]["id"]
    group = cloud.find("network", "/v2.0/security-groups", GROUP, project_id=project)
    if group is None:
        wish = {"name": GROUP, "description": "ssh and ping from anywhere"}
        group = dict(cloud.post("network", "/v2.0/security-groups", {"security_group": wish})["security_group"])
    for protocol, port in (("tcp", 22), ("icmp", None)):
        if protocol not in _let_in(group):
            rule = {"security_group_id": group["id"], "direction": "ingress", "protocol": protocol}
            if port:
                rule |= {"port_range_min": port, "port_range_max": port}
            _add_rule(cloud, rule)
    return str(group["id"])


def _let_in(group: dict[str, Any]) -> set[str]:
    """The protocols that a group lets in."""
    return {rule["protocol"] for rule in group["security_group_rules"] if rule["direction"] == "ingress"}


def _add_rule(cloud: Cloud, rule: dict[str, Any]) -> None:
    try:
        cloud.post("network", "/v2.0/security-group-rules", {"security_group_rule": rule})
    except Refused as error:
        group = cloud.get("network", f"/v2.0/security-groups/{rule['security_group_id']}")["security_group"]
        if error.status != 409 or rule["protocol"] not in _let_in(group):
            raise


def _id(cloud: Cloud, service: str, path: str, name: str) -> str:
    found = cloud.find(service, path, name)
    if found is None:
        raise Refused(404, f"there is no {path.rsplit('/', 1)[-1].removesuffix('s')} {name!r}")
    return str(found["id"])


def _active(cloud: Cloud, server_id: str) -> tuple[dict[str, Any] | None, str]:
    server = cloud.get("compute", f"/servers/{server_id}")["server"]
    if server["status"] == "ERROR":
        words = server.get("fault", {}).get("message", "no reason given")
        raise Refused(0, f"server {server['name']} failed: {words}")
    state = f"{server['status']} {server.get('OS-EXT-STS:task_state') or ''}".strip()
    return (server, state) if server["status"] == "ACTIVE" else (None, state)


def _floating_ip(cloud: Cloud, server: dict[str, Any]) -> str:
    for port in cloud.get("network", f"/v2.0/ports?device_id={server['id']}")["ports"]:
        for floating in cloud.get("network", f"/v2.0/floatingips?port_id={port['id']}")["floatingips"]:
            return str(floating["floating_ip_address"])
    return ""


def _associate(cloud: Cloud, server: dict[str, Any]) -> str:
    ports = cloud.get("network", f"/v2.0/ports?device_id={server['id']}")["ports"]
    if not ports:
        raise Refused(0, f"server {server['name']} has no port that a floating IP could lead to")
    wish = {"floating_network_id": _id(cloud, "network", "/v2.0/networks", "public"), "port_id": ports[0]["id"]}
    floating = cloud.post("network", "/v2.0/floatingips", {"floatingip": wish})["floatingip"]
    return str(floating["floating_ip_address"])


def _answers(address: str) -> tuple[bool | None, str]:
    """Whether an ssh server greets on port 22."""
    try:
        with socket.create_connection((address, 22), timeout=2) as connection:
            greeting = connection.recv(64)
    except OSError:
        greeting = b""
    return (True, "") if greeting.startswith(b"SSH-") else (None, f"booting, no ssh on {address} yet")
