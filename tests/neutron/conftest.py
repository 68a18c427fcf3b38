"""A neutron-server in this process, with people who call it and hosts whose agents it serves."""

from collections.abc import Mapping
from typing import Any

import pytest

from cumulet.core import clock
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config
from cumulet.core.context import Context
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database
from cumulet.core.errors import Unauthorized
from cumulet.core.heartbeat import Heartbeat, beat
from cumulet.core.reconcile import Loop
from cumulet.core.secrets import Secrets, host_token
from cumulet.neutron import app as neutron
from cumulet.neutron import tables  # noqa: F401  (its tables join the metadata)
from tests import databases

PEOPLE = {
    "admin": Context(user_id="root", project_id="adm", roles=frozenset({"admin", "manager", "member", "reader"})),
    "alice": Context(user_id="alice", project_id="red", roles=frozenset({"member", "reader"})),
    "rita": Context(user_id="rita", project_id="red", roles=frozenset({"reader"})),
    "mona": Context(user_id="mona", project_id="red", roles=frozenset({"manager", "member", "reader"})),
    "nova": Context(user_id="nova", project_id="service", roles=frozenset({"service"})),
    "bob": Context(user_id="bob", project_id="blue", roles=frozenset({"member", "reader"})),
}
SECRETS = Secrets("admin", "hosts", "metadata", "registry")


def authenticate(token: str) -> Context:
    if token not in PEOPLE:
        raise Unauthorized("no such token")
    return PEOPLE[token]


class Cloud:
    """``cloud.call("alice", "GET", "/networks")`` gives status and body; the verbs below insist on success."""

    def __init__(self, url: str = "") -> None:
        self.bus = LocalBus()
        self.db = Database(url or databases.url(), self.bus)
        databases.make_tables(self.db.engine)
        self.config = Config()
        self.config.etc_dir = "/nonexistent"
        env = ControllerEnv(self.config, self.db, self.bus, SECRETS, authenticate)
        service = neutron.build(env)
        self.app = service.app
        self.loop: Loop[Any] = Loop(service.loops[0])
        self.hints: list[tuple[str, str]] = []
        self.bus.hint = lambda topic, key: self.hints.append((topic, key))  # type: ignore[method-assign]

    def call(self, who: str, method: str, url: str, body: Any = None) -> tuple[int, Any]:
        path = url if url.startswith("/hosts") or url in ("/", "/v2.0", "/v2.0/") else f"/v2.0{url}"
        headers: Mapping[str, str] = {"X-Auth-Token": who}
        if who.startswith("host:"):
            host = who.removeprefix("host:")
            headers = {"X-Cumulet-Host": host, "X-Cumulet-Host-Token": host_token(SECRETS.host_secret, host)}
        status, answer, _ = self.app.call(method, path, body, headers)
        return status, answer

    def good(self, who: str, method: str, url: str, body: Any = None) -> Any:
        status, answer = self.call(who, method, url, body)
        assert status < 300, (status, answer)
        return answer

    def get(self, who: str, url: str) -> Any:
        return self.good(who, "GET", url)

    def create(self, who: str, kind: str, **values: Any) -> Any:
        """POST one thing; ``router__external=True`` for ``router:external``."""
        body = {name.replace("__", ":"): value for name, value in values.items()}
        collection = kind.replace("_", "-") if kind.startswith("security") else kind
        return self.good(who, "POST", f"/{collection}s", {kind: body})[kind]

    def refused(self, who: str, method: str, url: str, body: Any = None) -> tuple[int, str]:
        """The status and the error's type."""
        status, answer = self.call(who, method, url, body)
        assert status >= 400, (status, answer)
        assert status < 500, (status, answer)
        return status, answer["NeutronError"]["type"]

    def update(self, who: str, kind: str, key: str, **values: Any) -> Any:
        body = {name.replace("__", ":"): value for name, value in values.items()}
        collection = kind.replace("_", "-") if kind.startswith("security") else kind
        return self.good(who, "PUT", f"/{collection}s/{key}", {kind: body})[kind]

    def alive(self, host: str, *binaries: str, tunnel: str = "") -> None:
        """Agents of ``host`` give a sign of life."""
        for binary in binaries:
            with self.db.transaction() as tx:
                beat(tx, binary, host, Heartbeat(clock.now(), {"tunnel_address": tunnel} if tunnel else {}))

    def hinted(self) -> set[tuple[str, str]]:
        """The hints since the last look."""
        found, self.hints[:] = set(self.hints), []
        return found

    def notified(self, event_type: str) -> list[Any]:
        import sqlalchemy as sa

        from cumulet.core.tables import notifications

        with self.db.read() as tx:
            statement = sa.select(notifications).where(notifications.c.event_type == event_type)
            return [row.payload for row in tx.all(statement)]

    def network(self, who: str = "alice", cidr: str = "10.0.0.0/24", **values: Any) -> tuple[str, str]:
        """A network with a subnet: their ids."""
        network = self.create(who, "network", name="net", **values)["id"]
        version = 6 if ":" in cidr else 4
        subnet = self.create(who, "subnet", network_id=network, ip_version=version, cidr=cidr)["id"]
        return network, subnet

    def public_network(self) -> tuple[str, str]:
        values = {
            "router__external": True,
            "provider__network_type": "flat",
            "provider__physical_network": "public",
        }
        network = self.create("admin", "network", name="public", **values)["id"]
        subnet = self.create(
            "admin", "subnet", network_id=network, ip_version=4, cidr="172.24.4.0/24", enable_dhcp=False
        )["id"]
        return network, subnet


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()
