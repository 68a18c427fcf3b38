"""An upgrade while users go on: another version's code on the disk, its schema one migration further.

The versions are copies of this checkout; the newer one has a migration more, which adds what migrations may add.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.services import SERVICES
from tests.machine import HOME, Machine, wait_for

pytestmark = pytest.mark.host
CONTROLLERS = ",".join(service.name for service in SERVICES if not service.agent)
NEXT = '''"""What the version after this one adds."""

import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("next_things", sa.Column("id", sa.String(36), primary_key=True))
    op.add_column("ports", sa.Column("next_words", sa.String(255), nullable=False, server_default=""))
    op.add_column("servers", sa.Column("next_number", sa.Integer))
    op.create_index("ix_next_ports", "ports", ["next_words"])
'''
CALLS = """
import sys
from tests.host.test_upgrade import User
User(sys.stdin.readline().strip()).go_on()
"""


class User:
    """Asks for one thing after the other, each on a connection of its own, and counts what is answered."""

    def __init__(self, password: str) -> None:
        self._password, self._token = password, ""
        self.answers, self.failures = 0, []  # type: ignore[var-annotated]

    def go_on(self) -> None:
        """Until the end of standard input; then tell."""
        reader = threading.Thread(target=sys.stdin.read, daemon=True)
        reader.start()
        self._login()
        print("going on", flush=True)
        while reader.is_alive():
            self._round()
        print(msgspec.json.encode([self.answers, self.failures]).decode(), flush=True)

    def _round(self) -> None:
        self._login()
        network = self._ask(9696, "POST", "/v2.0/networks", {"network": {"name": "n"}}).get("network", {}).get("id")
        subnet = {"network_id": network, "cidr": "10.9.0.0/24", "ip_version": 4}
        self._ask(9696, "POST", "/v2.0/subnets", {"subnet": subnet})
        port = self._ask(9696, "POST", "/v2.0/ports", {"port": {"network_id": network}}).get("port", {}).get("id")
        for number, path in ((9696, "/v2.0/ports"), (8774, "/v2.1/servers/detail"), (8774, "/v2.1/flavors")):
            self._ask(number, "GET", path)
        self._ask(9292, "GET", "/v2/images")
        self._ask(5000, "GET", "/v3/projects")
        self._ask(9696, "DELETE", f"/v2.0/ports/{port}")
        self._ask(9696, "DELETE", f"/v2.0/networks/{network}")

    def _login(self) -> None:
        user = {"name": "admin", "domain": {"id": "default"}, "password": self._password}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
        self._ask(5000, "POST", "/v3/auth/tokens", {"auth": auth})

    def _ask(self, port: int, method: str, path: str, body: Any = None) -> Any:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"X-Auth-Token": self._token, "Content-Type": "application/json"}
        try:
            connection.request(method, path, msgspec.json.encode(body) if body else None, headers)
            response = connection.getresponse()
            raw = response.read()
        except OSError as error:
            self.failures.append(f"{method} {port}{path}: {error!r}")
            return {}
        finally:
            connection.close()
        self.answers += 1
        if response.status >= 400:
            self.failures.append(f"{method} {port}{path}: {response.status} {raw[:200]!r}")
            return {}
        self._token = response.headers.get("X-Subject-Token", self._token)
        return msgspec.json.decode(raw) if raw else {}


class Installed:
    """Where the cloud's code is, on a machine of its own; ``now`` leads to the version that is installed."""

    def __init__(self, place: Path) -> None:
        self.place, self.machine = place, Machine("upgraded")
        self.machine.env["PYTHONPATH"] = f"{place / 'now' / 'src'}:{HOME}"
        for version in ("this", "next"):
            shutil.copytree(HOME / "src", place / version / "src", ignore=shutil.ignore_patterns("__pycache__"))
        versions = place / "next" / "src" / "cumulet" / "migrations" / "versions"
        self.before = max(path.name.partition("_")[0] for path in versions.glob("[0-9]*_*.py"))
        self.newest = f"{int(self.before) + 1:04}"
        text = NEXT.format(number=self.newest, before=self.before)
        (versions / f"{self.newest}_next.py").write_text(text)
        self.install("this")

    def install(self, version: str) -> None:
        (self.place / "new").symlink_to(self.place / version)
        (self.place / "new").rename(self.place / "now")

    def cumulet(self, *words: str) -> str:
        return self.machine.run(sys.executable, "-m", "cumulet.cli.main", *words)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.machine.run("cat", "/run/cumulet/node.json"))
        return found

    def members(self) -> dict[str, int]:
        return {one["name"]: one["pid"] for one in self.state()["members"]}

    def schema(self) -> str:
        look = "import sqlite3; print(sqlite3.connect('/var/lib/cumulet/db/cumulet.sqlite').execute("
        return self.machine.run(
            sys.executable, "-c", f"{look}'select version_num from alembic_version').fetchone()[0])"
        ).strip()

    def is_up(self) -> bool:
        asked = self.machine.run(sys.executable, "-c", HEALTHY, check=False)
        return asked.strip() == "True"


HEALTHY = """
from cumulet.cli import status
from cumulet.core import config
found = config.load()
lines = status.healths(found) if status.running(found) else []
print(bool(lines) and all(one.healthy or one.pid == 0 for one in lines) and any(one.healthy for one in lines))
"""


@pytest.fixture
def installed() -> Iterator[Installed]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        Path(place).chmod(0o755)  # the cloud's user reads its code there
        found = Installed(Path(place))
        try:
            yield found
        finally:
            found.machine.end()


def test_no_request_fails_while_a_cloud_is_upgraded(installed: Installed) -> None:
    machine = installed.machine
    machine.run("mkdir", "-p", "/etc/cumulet")
    services = ", ".join(f'"{name}"' for name in CONTROLLERS.split(","))
    text = f"[node]\nname = 'upgraded'\nservices = [{services}]\n[identity]\nbcrypt_rounds = 4\n"
    machine.run("tee", "/etc/cumulet/cumulet.toml", stdin=text)
    parent = machine.start(sys.executable, "-m", "cumulet.cli.main", "node")
    wait_for(installed.is_up, 120, "cloud")
    assert installed.schema() == installed.before
    password = msgspec.json.decode(machine.run("cat", "/etc/cumulet/secrets.json"))["admin_password"]
    users = [_user(installed, password) for _ in range(3)]
    former = installed.members()
    installed.install("next")
    said = installed.cumulet("upgrade")
    after = installed.members()
    reports = [msgspec.json.decode(user.communicate("")[0].splitlines()[-1]) for user in users]
    assert [line for _, failures in reports for line in failures] == []
    assert all(answers > 20 for answers, _ in reports)
    assert sum(line.endswith("exchanged") for line in said.splitlines()) == len(former)
    assert former.keys() == after.keys()
    assert not set(former.values()) & set(after.values())
    assert installed.schema() == installed.newest
    assert parent.poll() is None


def _user(installed: Installed, password: str) -> Any:
    words = installed.machine.command([sys.executable, "-c", CALLS])
    user = subprocess.Popen(
        words, env=installed.machine.env, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert user.stdin
    assert user.stdout
    user.stdin.write(f"{password}\n")
    user.stdin.flush()
    assert user.stdout.readline().strip() == "going on"
    return user
