"""``deploy`` by a real ssh to a real sshd, in a machine of their own: a cloud of one node, twice, and changed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import HOME, Machine

UNPACKED = f"{sys.prefix}/share/sshd/sshd"  # by tools/setup, where the machine has none
SSHD = UNPACKED if Path(UNPACKED).exists() else "/usr/sbin/sshd"
pytestmark = pytest.mark.host
SERVER = """
Port 22
ListenAddress 127.0.0.1
HostKey /run/ssh/host
AuthorizedKeysFile /run/ssh/id.pub
PidFile /run/ssh/sshd.pid
StrictModes no
UsePAM no
PermitRootLogin yes
"""
CLIENT = """
Host *
    IdentityFile /run/ssh/id
    UserKnownHostsFile /run/ssh/known
    StrictHostKeyChecking accept-new
"""
CLOUD = '[[node]]\nname = "one"\naddress = "127.0.0.1"\nroles = ["controller", "network", "compute"]\n'
GUEST = "/var/lib/cumulet/guest"


@pytest.fixture
def machine() -> Iterator[Machine]:
    """With sshd, and with a guest image that nobody boots."""
    found = Machine("one")
    try:
        found.run("mkdir", "-p", "-m", "0755", "/run/ssh", "/run/sshd", GUEST)
        for key in ("host", "id"):
            found.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/run/ssh/{key}")
        found.run("sh", "-c", "id sshd || useradd -r -d /run/sshd -s /usr/sbin/nologin sshd")
        for name, text in (("server", SERVER), ("client", CLIENT), ("cloud.toml", CLOUD)):
            found.run("tee", f"/run/ssh/{name}", stdin=text)
        found.run("qemu-img", "create", "-q", "-f", "qcow2", f"{GUEST}/cirros.qcow2", "16M")
        found.run(SSHD, "-f", "/run/ssh/server", "-E", "/run/ssh/log")
        yield found
    finally:
        found.end()


def deploy(machine: Machine, *words: str) -> str:
    """The package is in its place: this checkout is in every machine."""
    options = ("--place", str(HOME), "--ssh-config", "/run/ssh/client")
    return machine.cumulet("deploy", "/run/ssh/cloud.toml", *options, *words)


def test_a_cloud_is_deployed_once_and_changed_where_its_topology_was(machine: Machine) -> None:
    assert deploy(machine, "--dry-run").split(maxsplit=1)[1] == "write cumulet.toml, cloud.toml; start\n"
    assert machine.run("ls", "-A", "/etc/cumulet") == ""
    assert deploy(machine).endswith("done\n")
    assert " up " in machine.cumulet("where")
    secret = machine.run("cat", "/etc/cumulet/secrets.json")
    assert deploy(machine).split(maxsplit=1)[1] == "nothing to do\n"
    machine.run("tee", "/run/ssh/cloud.toml", stdin=CLOUD + "\n[compute]\ncpu_ratio = 8.0\n")
    change = "write cumulet.toml, cloud.toml; exchange the services\n"
    assert deploy(machine, "--dry-run").split(maxsplit=1)[1] == change
    assert deploy(machine).startswith(f"  one                 {change}")
    assert "cpu_ratio = 8.0" in machine.run("cat", "/etc/cumulet/cumulet.toml")
    assert machine.run("cat", "/etc/cumulet/secrets.json") == secret
    assert machine.run("cat", "/etc/cumulet/cloud.toml", "/run/ssh/cloud.toml").count("cpu_ratio") == 2
