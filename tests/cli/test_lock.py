"""Two commands that change the node's cloud wait for each other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cumulet.cli import lock
from cumulet.core.config import Config, Node, load

OTHER = """
import sys
from cumulet.cli import lock
from cumulet.core.config import Config, Node
with lock.alone(Config(node=Node(run_dir=sys.argv[1])), "down"):
    print("in", flush=True)
"""


def test_the_second_waits_and_names_the_first(tmp_path: Path) -> None:
    config = Config(node=Node(run_dir=str(tmp_path / "run")))
    with lock.alone(config, "up"):
        other = subprocess.Popen(
            [sys.executable, "-c", OTHER, config.node.run_dir], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout
        first = other.stdout.readline()
        assert first.startswith("waiting for 'cumulet up' (pid ")
    assert other.stdout.readline() == "in\n"
    assert other.wait(10) == 0


def test_whoever_dies_holds_nothing(tmp_path: Path) -> None:
    config = Config(node=Node(run_dir=str(tmp_path / "run")))
    dying = OTHER + "    import os; os.kill(os.getpid(), 9)\n"
    assert subprocess.run([sys.executable, "-c", dying, config.node.run_dir], check=False).returncode == -9
    with lock.alone(config, "up"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="cumulet up needs root")
def test_the_second_up_waits_for_the_first(tmp_path: Path) -> None:
    """It is ended before the first is: what it would do then is its own business, and here it has done nothing."""
    file = tmp_path / "cumulet.toml"
    places = {f"{name}_dir": tmp_path / name for name in ("run", "state", "log")}
    file.write_text("[node]\n" + "".join(f'{name} = "{place}"\n' for name, place in places.items()))
    command = [sys.executable, "-m", "cumulet.cli.main", "--config", str(file), "up"]
    with lock.alone(load(file), "up"):
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert second.stdout
        try:
            assert second.stdout.readline() == f"waiting for 'cumulet up' (pid {os.getpid()}) to end\n"
        finally:
            second.terminate()
        assert second.communicate(timeout=10)[0] == ""
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cumulet.toml", lock.file(load(file)).name]
