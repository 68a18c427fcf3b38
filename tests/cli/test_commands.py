"""The command line without a cloud: quick, and one clear line with exit code 1 where it cannot do its work."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cumulet.core import secrets

HEAVY = (
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "msgspec",
    "libvirt",
    "yaml",
    "alembic",
    "cumulet.core.db",
    "asyncio",
)
COMMANDS = (
    "up",
    "down",
    "purge",
    "where",
    "launch",
    "ssh",
    "why",
    "logs",
    "doctor",
    "deploy",
    "node",
    "run",
    "test",
    "check",
    "bench",
)
NEED_CLOUD = (("where",), ("launch", "x"), ("ssh", "x"), ("why", "x"))
NEED_ROOT = (*NEED_CLOUD, ("up",), ("down",), ("purge", "--yes"), ("doctor",), ("node",), ("run", "keystone"))
root = pytest.mark.skipif(os.geteuid() != 0, reason="the command asks for root first")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "cumulet.toml"
    lines = [f'{name}_dir = "{tmp_path}/{name}"' for name in ("state", "run", "log")]
    file.write_text("[node]\n" + "\n".join(lines) + "\n")
    return file


def cumulet(config: Path, *words: str, user: int = 0) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cumulet.cli.main", "--config", str(config), *words]
    if user:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL, cwd="/"
    )


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr.strip()


def test_a_start_loads_nothing_heavy() -> None:
    text = (
        f"import sys; from cumulet.cli import main; main._parser(); print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(config: Path, command: str) -> None:
    done = cumulet(config, command, "--help")
    assert done.returncode == 0
    assert f"usage: cumulet {command}" in done.stdout


@root
@pytest.mark.parametrize("words", NEED_CLOUD, ids=lambda words: words[0])
def test_a_cloud_that_is_down_is_one_line(config: Path, words: tuple[str, ...]) -> None:
    assert one_line(cumulet(config, *words)) == "the cloud is down on this node: 'cumulet up' starts it"
    assert not (config.parent / "state").exists(), "looking makes nothing"


@root
@pytest.mark.parametrize("words", NEED_ROOT, ids=lambda words: words[0])
def test_who_is_not_root_is_told_why(words: tuple[str, ...]) -> None:
    with TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        config = Path(place) / "cumulet.toml"
        config.write_text("")
        assert one_line(cumulet(config, *words, user=65534)).startswith(f"cumulet {words[0]} needs root: ")


@root
def test_a_configuration_that_may_not_be_read_is_named(config: Path) -> None:
    config.parent.chmod(0o700)
    assert one_line(cumulet(config, "why", "x", user=65534)).endswith(f"{config}: Permission denied")


@root
def test_down_when_down_is_no_error(config: Path) -> None:
    done = cumulet(config, "down")
    assert (done.returncode, done.stdout) == (0, "the cloud is down already\n")


@root
def test_purge_asks_and_without_anybody_to_ask_removes_nothing(config: Path) -> None:
    (config.parent / "state").mkdir()
    done = cumulet(config, "purge")
    assert done.returncode == 1
    assert "repeat with --yes" in done.stderr
    assert (config.parent / "state").exists()


def test_a_configuration_that_is_wrong_is_named(config: Path) -> None:
    config.write_text('[node]\nnmae = "x"\n')
    line = one_line(cumulet(config, "logs"))
    assert str(config) in line
    assert "nmae" in line


def test_unknown_services_are_answered_with_those_there_are(config: Path) -> None:
    assert "neutron-server" in one_line(cumulet(config, "logs", "neutron"))
    assert "there is no log" in one_line(cumulet(config, "logs", "keystone"))


@root
def test_a_service_runs_alone_where_its_run_directory_is_gone() -> None:
    """As after a reboot, or after ``down``, which takes that directory away."""
    with TemporaryDirectory() as place:  # of a short name: a unix socket's path is bounded
        lines = [f'{name}_dir = "{place}/{name}"' for name in ("state", "run", "log")]
        config = Path(place) / "cumulet.toml"
        config.write_text("\n".join(["[node]", 'user = "root"', *lines]) + "\n")
        secrets.ensure(Path(place))
        command = [sys.executable, "-m", "cumulet.cli.main", "--config", str(config), "run", "nova-scheduler"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd="/") as service:
            assert service.stderr
            said = []
            for line in service.stderr:
                said.append(line)
                if "nova-scheduler started" in line:
                    break
            assert service.poll() is None, said
            assert (Path(place) / "run/status/nova-scheduler.sock").is_socket()
            service.terminate()
            service.communicate(timeout=60)
        assert service.returncode == 0
