"""The keys of tokens: made once, private, rotated without killing a token."""

import os
import stat
import time
from pathlib import Path

import pytest

from cumulet.core import secrets
from cumulet.core.config import Api, Config, Identity
from cumulet.core.errors import Unavailable
from cumulet.core.reconcile import Loop
from cumulet.keystone import keys
from cumulet.keystone.keys import Keyring
from cumulet.keystone.policies import DEFAULTS
from tests.keystone.identity import Keystone


def contents(config: Config) -> dict[str, bytes]:
    place = keys.directory(config)
    return {name: (place / name).read_bytes() for name in sorted(os.listdir(place))}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = Config(identity=Identity(token_seconds=3600, key_rotation_seconds=3600), etc_dir=str(tmp_path))
    keys.ensure(config)
    return config


def test_only_the_owner_can_read_them(config: Config) -> None:
    place = keys.directory(config)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert sorted(os.listdir(place)) == ["0", "1"]
    for name in ("0", "1"):
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o600
    before = contents(config)
    keys.ensure(config)
    assert contents(config) == before


def test_a_rotation_makes_the_staged_key_primary_and_forgets_the_oldest(config: Config) -> None:
    assert keys.keys_kept(config) == 3
    before = contents(config)
    keys.rotate(config)
    after = contents(config)
    assert set(after) == {"0", "1", "2"}
    assert after["2"] == before["0"]
    assert after["1"] == before["1"]
    assert after["0"] not in before.values()
    keys.rotate(config)
    assert set(contents(config)) == {"0", "2", "3"}


def test_a_token_outlives_the_rotations_of_its_life_and_no_more(config: Config) -> None:
    ring = keys.Keyring(keys.directory(config))
    old = ring.seal(b"old")
    padded = old.encode() + b"=" * (-len(old) % 4)
    keys.rotate(config)
    assert ring.open(padded) == b"old"
    new = ring.seal(b"new")
    keys.rotate(config)
    assert ring.open(padded) is None
    assert ring.open(new.encode() + b"=" * (-len(new) % 4)) == b"new"


def test_another_process_knows_the_new_primary_key_before_it_is_used(config: Config) -> None:
    ring, other = keys.Keyring(keys.directory(config)), keys.Keyring(keys.directory(config))
    other.seal(b"it has read the keys")
    stale = other._fernet
    keys.rotate(config)
    text = ring.seal(b"new")
    assert stale is not None
    assert stale.decrypt(text.encode() + b"=" * (-len(text) % 4)) == b"new"


def test_a_rotation_that_died_half_way_is_finished_by_the_next(config: Config) -> None:
    place = keys.directory(config)
    (place / "0").rename(place / "2")
    ring = keys.Keyring(place)
    assert ring.seal(b"x")
    keys.ensure(config)
    assert sorted(os.listdir(place)) == ["0", "1", "2"]


def test_the_loop_rotates_when_the_staged_key_is_old(config: Config) -> None:
    staged = keys.directory(config) / "0"
    before = contents(config)
    loop = Loop(keys.rotation_loop(config))
    loop.run_once()
    assert contents(config) == before
    long_ago = time.time() - 3601
    os.utime(staged, (long_ago, long_ago))
    loop.resync()
    loop.wake("keys")
    loop.run_once()
    assert set(contents(config)) == {"0", "1", "2"}
    loop.resync()
    loop.wake("keys")
    loop.run_once()
    assert set(contents(config)) == {"0", "1", "2"}, "once is enough"


def test_without_keys_nothing_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        keys.Keyring(tmp_path / "none").open(b"x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Unavailable):
        keys.Keyring(tmp_path / "empty").seal(b"x")


def test_every_service_follows_a_rotation(keystone: Keystone) -> None:
    keys.rotate(keystone.config)
    assert keystone.who(keystone.admin) is not None
    assert keystone.who(keystone.token("admin", "a secret of admin", project="admin")) is not None


def test_every_route_names_a_rule_that_exists(keystone: Keystone) -> None:
    for route in keystone.app.routes:
        assert route.policy == "public" or route.policy in DEFAULTS, route


SEVERAL = Api(controllers=["10.0.0.1", "10.0.0.2"])


@pytest.fixture
def controllers(tmp_path: Path) -> list[Config]:
    """Two, with the cloud's secrets and nothing else in common."""
    known, found = secrets.generate(), []
    for name in ("c1", "c2"):
        (tmp_path / name).mkdir()
        secrets.write(tmp_path / name, known)
        found.append(Config(api=SEVERAL, identity=Identity(3600, 12, 3600), etc_dir=str(tmp_path / name)))
    return found


def at(config: Config, now: float) -> Keyring:
    """The controller's keys when it is this time there."""
    place = keys.directory(config)
    place.mkdir(exist_ok=True)
    keys._agree(place, keys.common(config, place, now))
    return Keyring(place)


def padded(text: str) -> bytes:
    return text.encode() + b"=" * (-len(text) % 4)


def test_several_controllers_make_the_same_keys(controllers: list[Config]) -> None:
    for config in controllers:
        keys.ensure(config)
    first, second = (contents(config) for config in controllers)
    assert first.keys() == second.keys()
    assert {name for name in first if name != "0"} <= {name for name in second if first[name] == second[name]}
    sealed = keys.keyrings(controllers[0]).credentials.seal(b"secret")
    assert keys.keyrings(controllers[1]).credentials.open(padded(sealed)) == b"secret"


def test_a_token_of_one_controller_is_good_at_the_other_whoever_is_early(controllers: list[Config]) -> None:
    one, two = controllers
    for ahead in (0.0, 3599.0):
        early, late = at(one, 36000.0 + ahead), at(two, 36000.0)
        assert late.open(padded(early.seal(b"early"))) == b"early"
        assert early.open(padded(late.seal(b"late"))) == b"late"
    next_period = at(one, 39600.0)
    assert at(two, 36000.0).open(padded(next_period.seal(b"next"))) == b"next"


def test_old_keys_of_tokens_go_and_other_clouds_have_others(controllers: list[Config], tmp_path: Path) -> None:
    one, _ = controllers
    ring = at(one, 36000.0)
    old = padded(ring.seal(b"old"))
    assert at(one, 39600.0).open(old) == b"old"
    assert at(one, 46800.0).open(old) is None
    assert len(contents(one)) == keys.keys_kept(one)
    secrets.write(tmp_path / "c2", secrets.generate())
    assert at(controllers[1], 36000.0).open(old) is None


def test_a_second_controller_leaves_the_keys_of_credentials_as_they_are(controllers: list[Config]) -> None:
    one, _ = controllers
    alone = Config(etc_dir=one.etc_dir)
    keys.ensure(alone)
    sealed = padded(keys.keyrings(alone).credentials.seal(b"secret"))
    keys.ensure(one)
    assert keys.keyrings(one).credentials.open(sealed) == b"secret"
