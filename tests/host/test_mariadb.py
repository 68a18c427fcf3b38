"""A node whose database is a private MariaDB: from nothing to a first server, and the database killed under it."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import Machine, wait_for

pytestmark = pytest.mark.host
CONFIG = '[node]\nname = "node1"\n\n[database]\nprivate = true\n'
TOKEN = "openstack token issue -f value -c id"
ASK = 'curl -s -o /dev/null -w "%{http_code}" -H "X-Auth-Token: $1" http://127.0.0.1:9696/v2.0/networks'
PASSWORD = "python3 -c \"import json; print(json.load(open('/etc/cumulet/secrets.json'))['database_password'])\""


@pytest.fixture
def node() -> Iterator[Machine]:
    machine = Machine()
    try:
        machine.run("mkdir", "-p", "/etc/cumulet")
        machine.run("tee", "/etc/cumulet/cumulet.toml", stdin=CONFIG)
        yield machine
    finally:
        machine.end()


def daemon(node: Machine) -> str:
    return node.run("pgrep", "-x", "mariadbd", check=False).strip()


def test_a_cloud_on_its_own_mariadb_survives_its_death(node: Machine) -> None:
    node.cumulet("up", "--yes", seconds=900)
    assert node.ask("server", "list")[0]["Status"] == "ACTIVE"
    first, token = daemon(node), node.run("sh", "-c", TOKEN).strip()
    made = json.loads(node.openstack("network", "create", "acknowledged", "-f", "json"))["id"]
    node.run("kill", f"-{signal.SIGKILL.value}", first)
    statuses = []

    def answered() -> bool:
        statuses.append(node.run("sh", "-c", ASK, "ask", token))
        return statuses[-1] == "200" and daemon(node) not in ("", first)

    wait_for(answered, 30, "answer from the database that was started again")
    assert set(statuses) <= {"200", "503"}, statuses
    assert made in [one["ID"] for one in node.ask("network", "list")]
    assert "ok" in node.ssh("first", "echo", "ok")
    found = node.run("sh", "-c", f"grep -rl $({PASSWORD}) /var/log/cumulet /proc/[0-9]*/cmdline", check=False)
    assert not [line for line in found.splitlines() if Path(line).is_absolute()], found
    node.cumulet("down", "--now")
    assert daemon(node) == ""
