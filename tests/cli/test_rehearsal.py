"""The rehearsal before the fork: it runs every list of every API, and leaves nothing behind."""

import logging
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client import generate_latest

from cumulet.cli import child, rehearsal
from cumulet.core import db
from cumulet.core.config import Config
from cumulet.core.metrics import REGISTRY
from cumulet.services import SERVICES

CONTROLLERS = [service for service in SERVICES if not service.agent]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    plain = Config(etc_dir=str(tmp_path / "etc"))
    return replace(plain, node=replace(plain.node, state_dir=str(tmp_path / "state")))


def test_nothing_lasts(config: Config, tmp_path: Path) -> None:
    for service in CONTROLLERS:
        child.load(service)
    db.prepare(config.database_url)
    rehearsal.rehearse(config, CONTROLLERS)
    assert list(tmp_path.iterdir()) == []
    assert b"http_requests_total{" not in generate_latest(REGISTRY)
    assert b"passes_total{" not in generate_latest(REGISTRY)
    assert logging.root.manager.disable == logging.NOTSET


def test_lists_are_answered(config: Config) -> None:
    """A rehearsal that is refused everywhere would be none."""
    db.prepare(config.database_url)
    codes = rehearsal.rehearse(config, CONTROLLERS)
    for name in ("keystone", "neutron-server", "nova-api"):
        assert codes[name].count(200) > 10, name
        assert max(codes[name]) < 500


def test_another_database_is_not_rehearsed(config: Config) -> None:
    config.database.url = "mysql+pymysql://nobody@127.255.255.255/cumulet"
    assert rehearsal.rehearse(config, CONTROLLERS) == {}
