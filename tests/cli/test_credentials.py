"""clouds.yaml is merged, never destroyed."""

import stat
from pathlib import Path

import pytest
import yaml

from cumulet.cli import credentials
from cumulet.core import secrets
from cumulet.core.config import Config

MINE = {"auth": {"auth_url": "http://127.0.0.1:5000/v3", "password": "p"}, "region_name": "RegionOne"}
OTHERS = {
    "empty": "",
    "comment": "# mine\nclouds:\n  # work\n  work:\n    auth: {auth_url: http://w}\n",
    "four spaces": "clouds:\n    work:\n        auth:\n            auth_url: http://w\n",
    "cache first": "cache:\n  expiration_time: 3600\nclouds:\n  work: {region_name: W}\n",
    "clouds last and empty": "cache: {}\nclouds:\n",
    "flow style": "clouds: {work: {region_name: W}}\n",
    "no clouds": "cache: {}\n",
}


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS.keys())
def test_our_entry_joins_and_the_rest_stays(text: str) -> None:
    merged = credentials.merged(text, MINE)
    document = yaml.safe_load(merged)
    before = yaml.safe_load(text) or {}
    assert document["clouds"].pop("cumulet") == MINE
    assert document == {**before, "clouds": before.get("clouds") or {}}
    assert credentials.merged(merged, MINE) == merged
    if text.startswith("#"):
        assert "# mine" in merged
        assert "# work" in merged


def test_a_changed_password_replaces_only_our_entry() -> None:
    text = credentials.merged("clouds:\n  work: {region_name: W}\n", MINE)
    changed = {**MINE, "region_name": "Two"}
    document = yaml.safe_load(credentials.merged(text, changed))
    assert document["clouds"] == {"work": {"region_name": "W"}, "cumulet": changed}


def test_a_file_that_is_no_mapping_is_left_alone() -> None:
    with pytest.raises(SystemExit, match="left as it is"):
        credentials.merged("- a\n- b\n", MINE)


def test_both_files_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    secrets.ensure(tmp_path)
    written = credentials.write(Config(etc_dir=str(tmp_path)))
    for path in (written.clouds, written.openrc):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = written.clouds.read_text()
    credentials.write(Config(etc_dir=str(tmp_path)))
    assert written.clouds.read_text() == again
