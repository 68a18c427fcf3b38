"""The keeper starts the parent again, later and later; systemd's unit does the same."""

import os
import subprocess
from pathlib import Path

from cumulet.cli import keeper

SLEEP = '#!/bin/sh\necho "$1" >> {log}\n'
DATE = "#!/bin/sh\ncat {clock}\n"


def run_loop(place: Path, script: str) -> list[str]:
    """Run the keeper's loop with this parent and a clock of our own; how long it slept each time."""
    tools = {
        "sleep": SLEEP.format(log=place / "slept"),
        "date": DATE.format(clock=place / "clock"),
        "parent": script,
    }
    for name, text in tools.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    (place / "clock").write_text("1000\n")
    (place / "slept").touch()
    env = {"PATH": f"{place}:{os.environ['PATH']}", "PLACE": str(place)}
    subprocess.run(
        ["/bin/sh", "-c", keeper.LOOP, "keeper.pid", str(place / "parent")], env=env, check=True, timeout=30
    )
    return (place / "slept").read_text().split()


def test_a_parent_that_ends_at_once_waits_longer_and_longer(tmp_path: Path) -> None:
    script = "#!/bin/sh\necho x >> $PLACE/tries\n[ $(wc -l < $PLACE/tries) -ge 14 ]\n"
    slept = run_loop(tmp_path, script)
    assert slept[:3] == ["1.4", "2.4", "3.4"]
    assert slept[-2:] == ["10.4", "10.4"]


def test_a_parent_that_ran_for_long_is_started_again_soon(tmp_path: Path) -> None:
    script = (
        "#!/bin/sh\necho x >> $PLACE/tries\n[ $(wc -l < $PLACE/tries) -ge 4 ] && exit 0\n"
        "[ $(wc -l < $PLACE/tries) = 3 ] && echo 2000 > $PLACE/clock\nkill -9 $$\n"
    )
    assert run_loop(tmp_path, script) == ["1.4", "2.4", "0.4"]


def test_an_orderly_end_ends_the_keeper(tmp_path: Path) -> None:
    assert run_loop(tmp_path, "#!/bin/sh\nexit 0\n") == []


def test_the_unit_names_the_command_whatever_is_in_it() -> None:
    text = keeper.unit(["/opt/my cloud/100%/python", "-m", "cumulet.cli.main", "--config", "/etc/$x.toml", "node"])
    assert 'ExecStart="/opt/my cloud/100%%/python" -m cumulet.cli.main ' in text
    assert '"/etc/$$x.toml" node' in text
    for line in ("KillMode=process", "Restart=on-failure", "OOMPolicy=continue", "StartLimitIntervalSec=0"):
        assert line in text.splitlines()
