"""``cumulet launch``: several first ones at once, each with all that its server needs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cumulet.cli import launch
from cumulet.cli.cloud import Cloud, Json, Refused
from cumulet.core import secrets
from cumulet.core.config import Config
from tests.nova import api_cloud

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f cumulet"
SHARED = ("/os-keypairs", "/v2.0/security-groups", "/v2.0/security-group-rules")
"""What all launches use: the first one makes it."""


class Apis(Cloud):
    """The real nova and neutron.  ``meanwhile`` happens once, before the first POST to ``moment``."""

    def __init__(self, place: Path) -> None:
        secrets.ensure(place)
        super().__init__(Config(etc_dir=str(place)))
        self.real = api_cloud.Cloud()
        self.real.add_host()
        self.real.network("admin")
        self.moment = ""
        self.meanwhile: Callable[[], object] = dict

    def _ask(self, method: str, service: str, path: str, body: Any = None) -> Json:
        if service == "identity":
            return {"projects": [{"id": "adm"}]}
        if service == "image":
            return {"images": [{"id": self.real.image, "name": "cirros"}]}
        if (method, path) == ("POST", self.moment):
            self.moment = ""
            self.meanwhile()
        app, prefix = (self.real.app, "/v2.1") if service == "compute" else (self.real.neutron, "")
        headers = {"X-Auth-Token": "admin"} | ({"OpenStack-API-Version": "compute 2.67"} if prefix else {})
        code, answer, _ = app.call(method, prefix + path, body, headers)
        if code >= 400:
            raise Refused(code, str(answer))
        return dict(answer or {})

    def launch(self, name: str) -> Json:
        return launch.create(self, name, "cirros", "m1.tiny", "private")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".ssh"


@pytest.fixture
def apis(tmp_path: Path, home: Path) -> Apis:
    home.mkdir()
    (home / "cumulet_ed25519").write_text("")
    (home / "cumulet_ed25519.pub").write_text(PUBLIC_KEY)
    return Apis(tmp_path)


def protocols_let_in(apis: Apis, server: str) -> set[str]:
    """By the groups of its ports."""
    (port,) = apis.get("network", f"/v2.0/ports?device_id={server}")["ports"]
    groups = [apis.get("network", f"/v2.0/security-groups/{one}") for one in port["security_groups"]]
    return {
        rule["protocol"]
        for group in groups
        for rule in group["security_group"]["security_group_rules"]
        if rule["direction"] == "ingress" and not rule["remote_group_id"]
    }


@pytest.mark.parametrize("moment", SHARED)
def test_two_first_launches_at_once(apis: Apis, moment: str) -> None:
    """One overtakes the other between a look and what is made because of it."""
    others: list[Json] = []
    apis.moment, apis.meanwhile = moment, lambda: others.append(apis.launch("second"))
    servers = [apis.launch("first"), *others]
    assert len(servers) == 2
    servers.append(apis.launch("third"))
    apis.real.place()
    for server in servers:
        assert protocols_let_in(apis, server["id"]) == {"tcp", "icmp"}


def test_what_is_refused_for_another_reason_is_told(apis: Apis) -> None:
    """The quota, too, is a 409."""
    wish = {"quota": {"security_group_rule": 5}}
    answer = apis.real.neutron.call("PUT", "/v2.0/quotas/adm", wish, {"X-Auth-Token": "admin"})
    assert answer[0] == 200, answer
    with pytest.raises(Refused, match=r"[Qq]uota"):
        apis.launch("first")


def test_a_key_is_made_once(home: Path) -> None:
    """By whoever comes first; its halves belong together, and nothing else is left."""
    makers: list[Callable[[], Path]] = [launch.private_key] * 8
    with ThreadPoolExecutor(len(makers)) as pool:
        (path,) = {made.result() for made in [pool.submit(make) for make in makers]}
    assert path == home / "cumulet_ed25519"
    assert path.stat().st_mode & 0o777 == 0o600
    assert {one.name for one in home.iterdir()} == {path.name, f"{path.name}.pub", f"{path.name}.lock"}
