"""Two commands that change the node's cloud wait for each other."""

import subprocess
import sys
from pathlib import Path

from cumulet.cli import lock
from cumulet.core.config import Config, Node

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
