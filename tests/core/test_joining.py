"""A node joins with a token: good once, for a while, for one name; the answer is for who has the token alone."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core import clock, config, joining, secrets
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config
from cumulet.core.db import Database
from cumulet.core.errors import BadRequest, Unauthorized
from cumulet.core.http import App, Caller
from cumulet.core.parcels import Parcel
from cumulet.core.policy import Policies
from cumulet.core.schema import encode
from cumulet.core.tables import join_tokens
from tests import databases

TOPOLOGY = """
[database]
url = "mysql://cumulet:private@10.0.0.1/cumulet"

[[node]]
name = "c1"
address = "10.0.0.1"
roles = ["controller"]

[[node]]
name = "n1"
address = "10.0.0.2"
roles = ["network"]

[[node]]
name = "h1"
address = "10.0.0.3"
roles = ["compute"]
"""


class Controllers:
    """A controller that answers, with its secrets in ``etc``."""

    def __init__(self, etc: Path) -> None:
        self.secrets = secrets.ensure(etc)
        self.db = Database("sqlite://", LocalBus())
        databases.make_tables(self.db.engine)
        (etc / "cloud.toml").write_text(TOPOLOGY)
        self.etc = etc
        self.app = App(
            "nova-conductor",
            joining.routes(self.secrets.host_secret),
            db=self.db,
            config=Config(etc_dir=str(etc)),
            policies=Policies({}),
            caller=Caller(_nobody, lambda host, token: _nobody(token)),
            render_error=lambda error: (encode({"error": {"message": error.message}}), "application/json"),
        )

    def token(self, node: str, seconds: float = 60.0) -> str:
        with self.db.transaction() as tx:
            return joining.issue(tx, self.secrets.host_secret, node, seconds)

    def call(self, token: str, proof: str = "") -> tuple[int, Any]:
        number, _, key = token.partition(".")
        status, answer, _ = self.app.call("POST", f"/join/{number}", {"proof": proof or joining.prove(key)})
        return status, answer

    def refused(self, token: str, proof: str = "") -> tuple[int, str]:
        status, answer = self.call(token, proof)
        return status, answer["error"]["message"]

    def join(self, token: str) -> Parcel:
        status, answer = self.call(token)
        assert status == 200
        return joining.opened(token.partition(".")[2], answer)


def _nobody(_: str) -> Any:
    raise Unauthorized("nobody is known here")


@pytest.fixture
def cloud(tmp_path: Path) -> Controllers:
    return Controllers(tmp_path)


def test_a_node_gets_what_it_needs_and_nothing_that_is_good_for_others(cloud: Controllers, tmp_path: Path) -> None:
    parcel = cloud.join(cloud.token("h1"))
    assert parcel.node == "h1"
    assert sorted(parcel.files) == ["cumulet.toml", "secrets.json"]
    place = tmp_path / "h1"
    place.mkdir()
    for name, text in parcel.files.items():
        (place / name).write_text(text)
    assert config.load(place / "cumulet.toml").node.name == "h1"
    own = secrets.load_host(place, "h1")
    assert own.host_token == secrets.host_token(cloud.secrets.host_secret, "h1")
    assert own.metadata_secret == ""
    everything = "".join(parcel.files.values())
    known = cloud.secrets
    others = (known.host_secret, known.admin_password, known.registry_secret, known.broker_password, "private")
    assert not [secret for secret in others if secret in everything]


def test_a_network_node_gets_the_metadata_secret(cloud: Controllers) -> None:
    assert cloud.secrets.metadata_secret in cloud.join(cloud.token("n1")).files["secrets.json"]


def test_a_token_is_good_once(cloud: Controllers) -> None:
    token = cloud.token("h1")
    cloud.join(token)
    assert cloud.refused(token) == (
        401,
        "this token was used or is too old: 'cumulet node token h1' makes a new one",
    )


def test_a_token_is_good_for_a_while(cloud: Controllers) -> None:
    token = cloud.token("h1")
    with cloud.db.transaction() as tx:
        tx.write(sa.update(join_tokens).values(expires_at=clock.later(-1.0)))
    assert cloud.refused(token)[0] == 401


def test_a_new_token_ends_the_old_one(cloud: Controllers) -> None:
    old, new = cloud.token("h1"), cloud.token("h1")
    assert cloud.refused(old) == (401, "this is not a token of this cloud")
    assert cloud.join(new).node == "h1"


def test_who_has_no_token_learns_nothing_and_uses_none_up(cloud: Controllers) -> None:
    token, other = cloud.token("h1"), cloud.token("n1")
    assert cloud.refused(token, joining.prove(other.partition(".")[2]))[0] == 401
    assert cloud.refused("0" * 32 + ".x", "x") == (401, "this is not a token of this cloud")
    answer = cloud.call(token)[1]
    assert cloud.secrets.metadata_secret.encode() not in answer
    with pytest.raises(Unauthorized, match="is not the controller that made this token"):
        joining.opened(other.partition(".")[2], answer)


def test_a_failure_of_the_controller_uses_no_token_up(cloud: Controllers) -> None:
    token = cloud.token("h1")
    (cloud.etc / "cloud.toml").write_text("nonsense")
    assert cloud.refused(token)[0] == 503
    (cloud.etc / "cloud.toml").write_text(TOPOLOGY)
    assert cloud.join(token).node == "h1"


def test_a_controller_does_not_join(cloud: Controllers) -> None:
    status, message = cloud.refused(cloud.token("c1"))
    assert (status, "deploy it" in message) == (400, True)
    with pytest.raises(BadRequest, match="c1 is to run controller services"):
        joining.check(True, "c1")


def test_a_parcel_shows_no_secret(cloud: Controllers) -> None:
    parcel = cloud.join(cloud.token("h1"))
    assert repr(parcel) == "Parcel('h1', ['cumulet.toml', 'secrets.json'])"
