"""A host's certificate: whose name is signed, what is refused, when there is a new one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cumulet.core import certificates
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config, Node, Tls
from cumulet.core.context import Context
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database
from cumulet.core.http import App
from cumulet.core.reconcile import Loop
from cumulet.core.secrets import Secrets, host_token
from cumulet.nova import conductor
from cumulet.nova.compute.identity import Identity


class Cloud:
    def __init__(self, authority: str) -> None:
        known = Secrets("admin", "host", "metadata", "registry", authority=authority)
        bus = LocalBus()
        env = ControllerEnv(Config(), Database("sqlite://", bus), bus, known, lambda token: Context())
        self.app: App = conductor.build_app(env)

    def sign(self, key: str, host: str = "c1", caller: str = "c1") -> tuple[int, str]:
        headers = {"X-Cumulet-Host": caller, "X-Cumulet-Host-Token": host_token("host", caller)}
        status, answer, _ = self.app.call("POST", f"/hosts/{host}/certificate", {"public_key": key}, headers)
        return status, answer.get("certificate", "")


@pytest.fixture(scope="module")
def authority() -> str:
    return certificates.make_authority()


def test_a_host_gets_its_own_name_and_no_other(authority: str) -> None:
    cloud, key = Cloud(authority), certificates.make_key()
    status, certificate = cloud.sign(certificates.public_key(key))
    assert status == 200
    assert certificates.still_good(key + certificate, authority, ["c1"], datetime.now(UTC))
    assert cloud.sign(certificates.public_key(key), host="c2")[0] == 403
    headers = {"X-Cumulet-Host": "c2", "X-Cumulet-Host-Token": host_token("host", "c1")}
    assert cloud.app.call("POST", "/hosts/c2/certificate", {"public_key": ""}, headers)[0] == 401


@pytest.mark.parametrize("key", ["", "x" * 3000, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(authority: str, key: str) -> None:
    assert Cloud(authority).sign(key)[0] == 400


def test_secrets_of_before_there_was_an_authority() -> None:
    assert Cloud("").sign(certificates.public_key(certificates.make_key()))[0] == 503


def test_it_is_renewed_in_the_middle_of_its_life(tmp_path: Path, authority: str) -> None:
    cloud, clock = Cloud(authority), [datetime.now(UTC)]
    config = Config(node=Node(name="c1"), etc_dir=str(tmp_path), tls=Tls(on=True))
    certificates.prepare(config, authority, None)
    asked = []

    def sign(key: str) -> str:
        asked.append(key)
        return cloud.sign(key)[1]

    loop = Loop(Identity(config, "c1", sign, lambda: clock[0]).reconciler())
    path = certificates.host_path(config)
    assert not certificates.still_good(path.read_text(), authority, ["c1"], clock[0]), "nobody has signed it yet"
    loop.run_once()
    first = path.read_text()
    assert certificates.still_good(first, authority, ["c1"], clock[0])
    assert path.stat().st_mode & 0o777 == 0o600
    loop.resync()
    loop.run_once()
    assert path.read_text() == first
    clock[0] += timedelta(days=certificates.HOST_DAYS / 2 + 1)
    loop.resync()
    loop.run_once()
    assert path.read_text() != first
    assert len(asked) == 2, "a new key each time"
    assert asked[0] != asked[1]


def test_without_tls_there_is_nothing_to_do(tmp_path: Path) -> None:
    config = Config(etc_dir=str(tmp_path))
    assert Identity(config, "c1", lambda key: "").read() == {}
