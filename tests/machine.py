"""A machine for tests: namespaces of their own on this one, in which a whole cloud can run and be killed.

Commands run in it as root.  Whatever a test leaves running ends with the machine.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

HOME = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
T = TypeVar("T")
POWER_CUT = """
for entry in /proc/[0-9]*; do
    pid=${entry#/proc/}
    case $pid in 1 | $$ | $1) ;; *) kill -9 $pid 2> /dev/null ;; esac
done
for name in $(ls /run/netns); do umount -l /run/netns/$name; rm /run/netns/$name; done
for link in $(ls /sys/class/net); do ip link delete $link 2> /dev/null; done
nft flush ruleset
rm -rf /run/cumulet
"""


class Machine:
    """Starts with an empty run directory, state and network; ``env`` is what its commands get."""

    def __init__(self, name: str = "node1") -> None:
        own = {**os.environ, "CUMULET_TEST_HOST": name}
        self._process = subprocess.Popen(
            [HOME / "tests" / "isolated", "sleep", "infinity"], env=own, start_new_session=True
        )
        self._pid = wait_for(self._first_process, 10, "the machine's first process")
        self.env = {
            **os.environ,
            "HOME": "/run/root",
            "XDG_CONFIG_HOME": "/run/root/.config",
            "OS_CLOUD": "cumulet",
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.run("mkdir", "-p", "/run/root")

    def command(self, words: Sequence[str]) -> list[str]:
        return ["nsenter", "-t", str(self._pid), "-m", "-u", "-i", "-n", "-p", "--", *words]

    def run(self, *words: str, check: bool = True, seconds: float = 300, stdin: str | None = None) -> str:
        """Run a command in it; what it printed.  AssertionError with that if it failed."""
        done = subprocess.run(
            self.command(words),
            env=self.env,
            cwd="/",
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Run a command in it, in the background."""
        return subprocess.Popen(
            self.command(words), env=self.env, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def cumulet(self, *words: str, check: bool = True, seconds: float = 400) -> str:
        return self.run(str(HOME / "cumulet"), *words, check=check, seconds=seconds)

    def openstack(self, *words: str, check: bool = True) -> str:
        """The unmodified client."""
        return self.run(str(BIN / "openstack"), *words, check=check)

    def ask(self, *words: str) -> Any:
        """The client's answer as data."""
        return json.loads(self.openstack(*words, "-f", "json"))

    def ssh(self, server: str, *words: str, check: bool = True) -> str:
        return self.cumulet("ssh", server, "--", *words, check=check)

    @property
    def process_id(self) -> int:
        """Its first process, for who wants to be in its namespaces."""
        return self._pid

    def power_cut(self) -> None:
        """Everything that runs ends at once; the disks stay, memory and the run directory do not."""
        holder = self.run("cat", "/proc/1/task/1/children").split()[0]
        self.run("bash", "-c", POWER_CUT, "power-cut", holder)

    def end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _first_process(self) -> int | None:
        """The process 1 of the namespaces: the only child of ``unshare``, once it has mounted everything."""
        for child in _children(self._process.pid):
            for grandchild in _children(child):
                if "sleep" in (Path("/proc") / str(grandchild) / "cmdline").read_text():
                    return child
        return None


def wait_for(look: Callable[[], T | None], seconds: float, what: str) -> T:
    """Poll for a level, with a deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.1)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
