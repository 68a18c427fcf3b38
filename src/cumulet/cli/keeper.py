"""Who starts the node's parent again if it is killed: systemd where it runs, else a shell loop, the keeper.

Neither holds anything of the terminal, the open files or the directory of whoever called ``up``, and of the
environment only what is named here.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from cumulet.cli import record
from cumulet.core.config import Config
from cumulet.host import process

UNIT = "cumulet.service"
UNIT_FILE = Path("/etc/systemd/system") / UNIT
SYSTEMD = Path("/run/systemd/system")
STOP_SECONDS = 30.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where systemd's services find programs, too: what runs must not depend on who called ``up``."""
INHERITED = ("HOME", "LANG", "TZ", "PYTHONDONTWRITEBYTECODE")
LOOP = """: cumulet-keeper
cd /
delay=0
until since=$(date +%s); "$@"; do
    if [ $(($(date +%s) - since)) -ge 15 ]; then delay=0; elif [ $delay -lt 10 ]; then delay=$((delay + 1)); fi
    sleep $delay.4
done"""
"""An orderly end of the parent (exit code 0) ends it; a parent that ends at once waits longer and longer."""


def start(config: Config, file: Path) -> None:
    """Have the node's parent started, unless it lives.  A keeper that waits between two tries starts over."""
    if record.find_parent(config):
        return
    command = [sys.executable, "-m", "cumulet.cli.main", "--config", str(file.absolute()), "node"]
    if SYSTEMD.exists():
        _start_unit(command)
        return
    stop(config)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            os.set_inheritable(int(name), False)
    process.start(
        ["/bin/sh", "-c", LOOP, str(record.keeper_file(config)), *command],
        str(record.keeper_file(config)),
        log_path=str(output(config)),
        env={"PATH": PATH} | {name: os.environ[name] for name in INHERITED if name in os.environ},
    )


def output(config: Config) -> Path:
    """What the parent says before it has its log."""
    return config.logs / "cumulet-node.out"


def stop(config: Config) -> None:
    """End the keeper, the parent and its services in good order, whatever of them lives; the parts go on."""
    if SYSTEMD.exists() and UNIT_FILE.exists():
        subprocess.run(["systemctl", "disable", "--now", "--quiet", UNIT], check=False)
    found = record.find_keeper(config)
    session = _session(found.pid) if found else []
    process.terminate(str(record.keeper_file(config)), str(record.keeper_file(config)))
    process.terminate(str(record.parent_file(config)), record.TITLE, STOP_SECONDS)
    state = record.read_state(config)
    members = [process.Process(m.pid, m.ticks) for m in state.members if not m.part and m.pid] if state else []
    end([*session, *members], STOP_SECONDS)
    record.forget(config)


def end(found: list[process.Process], seconds: float) -> None:
    """SIGTERM to those that live, SIGKILL after ``seconds`` to those that still do."""
    for signum, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        alive = [one for one in found if process.look(one.pid) == one]
        for one in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signum)
        deadline = time.monotonic() + patience
        for one in alive:
            process.wait_ended(one, deadline - time.monotonic())


def unit(command: list[str]) -> str:
    """The unit's text.  The parts and guests in its group are not systemd's to end, nor is their end the unit's."""
    words = " ".join(_quoted(word) for word in command)
    return f"""[Unit]
Description=Cumulet, an OpenStack cloud
After=network.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={words}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=0.5
KillMode=process
TimeoutStopSec={STOP_SECONDS:.0f}
Delegate=yes
OOMPolicy=continue
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""


def _quoted(word: str) -> str:
    """As systemd reads it: % and $ mean something to it, blanks separate."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[\w@%+=:,./-]+", word) else f'"{escaped}"'


def _start_unit(command: list[str]) -> None:
    text = unit(command)
    if not UNIT_FILE.exists() or UNIT_FILE.read_text() != text:
        UNIT_FILE.write_text(text)
        subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "enable", "--now", "--quiet", UNIT], check=True)


def _session(leader: int) -> list[process.Process]:
    """The keeper's session without itself: the parent, also one that is only just starting, and its services."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == leader:
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if os.getsid(int(entry.name)) == leader and (one := process.look(int(entry.name))):
                found.append(one)
    return found
