"""What goes to another host by a second name: hosts whose servers' files are on one file system."""

import uuid
from pathlib import Path

import pytest

from cumulet.core.config import Config
from cumulet.core.errors import Retry, Terminal
from cumulet.nova.compute.shared_disks import DisksElsewhere, SharedDisks, directory

SERVER = str(uuid.uuid4())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


def host(root: Path | None, name: str, *files: str) -> SharedDisks:
    """With a server that has these files."""
    state = (root or Path("/nowhere")).parent / f"state-{name}"
    if root:
        state.mkdir(exist_ok=True)
        (root / name / SERVER).mkdir(parents=True)
        for file in files:
            (root / name / SERVER / file).write_text(f"{file} of {name}")
    return SharedDisks(root, name, state)


def test_all_hosts_agree_which_file_system_it_is(root: Path) -> None:
    one, two = host(root, "one"), host(root, "two")
    assert one.store() == two.store() == one.store() != ""
    assert sorted(path.name for path in root.iterdir()) == [".cumulet-store", "one", "two"]
    assert host(None, "three").store() == ""


def test_one_that_is_not_mounted_is_not_taken_for_an_empty_one(root: Path) -> None:
    one = host(root, "one")
    store = one.store()
    away = root.rename(root.with_name("away"))
    root.mkdir()
    with pytest.raises(Retry, match="is it mounted"):
        one.store()
    assert list(root.iterdir()) == []
    root.rmdir()
    with pytest.raises(Retry):
        one.store()
    away.rename(root)
    assert one.store() == store


def test_disks_are_handed_over_by_name(root: Path) -> None:
    one, two = host(root, "one", "disk", "swap"), host(root, "two", "disk", "base")
    proof = two.prove(SERVER)
    assert one.hand_over(SERVER, "two", proof)
    for name in ("disk", "swap"):
        assert (root / "two" / SERVER / name).samefile(root / "one" / SERVER / name)
    assert one.hand_over(SERVER, "two", proof), "again is no harm"
    assert sorted(path.name for path in (root / "two" / SERVER).iterdir()) == ["base", "disk", "proof", "swap"]
    (root / "one" / SERVER / "disk").unlink()
    assert (root / "two" / SERVER / "disk").read_text() == "disk of one"


def test_nothing_is_handed_over_without_a_proof(root: Path, tmp_path: Path) -> None:
    one, two = host(root, "one", "disk"), host(root, "two", "disk")
    (tmp_path / "other").mkdir()
    elsewhere = SharedDisks(tmp_path / "other", "two", tmp_path)
    (tmp_path / "other" / "two" / SERVER).mkdir(parents=True)
    assert not one.hand_over(SERVER, "two", "")
    assert not one.hand_over(SERVER, "two", elsewhere.prove(SERVER)), "its files are on another file system"
    two.prove(SERVER)
    assert not one.hand_over(SERVER, "two", "another proof")
    assert not one.hand_over(SERVER, "three", "a proof")
    assert not host(None, "four").hand_over(SERVER, "two", two.prove(SERVER))
    assert (root / "two" / SERVER / "disk").read_text() == "disk of two"


@pytest.mark.parametrize("name", ["", ".", "..", "../one", "one/x", "a\nb"])
def test_a_name_leads_nowhere_else(root: Path, name: str) -> None:
    with pytest.raises(Terminal, match="not a host's name"):
        host(root, "one", "disk").hand_over(SERVER, name, "a proof")


def test_a_dead_hosts_disks_are_inherited(root: Path) -> None:
    one, two = host(root, "one", "disk", "ephemeral"), host(root, "two")
    two.inherit(SERVER, "one")
    for name in ("disk", "ephemeral"):
        assert (root / "two" / SERVER / name).samefile(root / "one" / SERVER / name)
    with pytest.raises(Terminal, match="not in the files of three"):
        two.inherit(SERVER, "three")
    with pytest.raises(Terminal, match="no file system here"):
        host(None, "four").inherit(SERVER, "one")
    assert one.store() == two.store()


def test_servers_are_not_forgotten_where_they_were(tmp_path: Path) -> None:
    config = Config()
    config.node.state_dir, config.node.name = str(tmp_path), "one"
    assert directory(config) == tmp_path / "servers"
    config.compute.shared_disks = "/srv/shared"
    assert directory(config) == Path("/srv/shared/one")
    (tmp_path / "servers" / SERVER).mkdir(parents=True)
    with pytest.raises(DisksElsewhere, match="/srv/shared/one"):
        directory(config)
