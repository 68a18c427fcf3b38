"""What the L2 agent keeps in a file, for ports that its controller does not know."""

from pathlib import Path

from cumulet.neutron.l2.kept import Kept
from cumulet.neutron.model import WireIntent
from tests.neutron.l2_controller import a_port

ONE = WireIntent((a_port("p1", "n1", "fa:16:3e:00:00:01", "10.0.0.1"),), cloud="c")


def test_what_is_kept_outlives_the_agent(tmp_path: Path) -> None:
    file = tmp_path / "wired.json"
    assert Kept(file).load() == WireIntent()
    kept = Kept(file)
    kept.save(ONE)
    written = file.stat()
    kept.save(WireIntent(ONE.ports, cloud="c"))  # nothing new
    assert file.stat() == written
    assert (kept.load(), Kept(file).load()) == (ONE, ONE)
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_broken_file_is_none(tmp_path: Path) -> None:
    file = tmp_path / "wired.json"
    for text in ("", "{", '{"ports": 5}', "\xff"):
        file.write_text(text, "latin-1")
        assert Kept(file).load() == WireIntent()
