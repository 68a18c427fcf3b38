"""``cumulet test`` and ``cumulet check``: what continuous integration runs, too."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
LOGS = HOME / "build"
PROJECTS = [
    f"tests/{name}" for name in ("core", "keystone", "glance", "neutron", "nova", "placement", "migrations")
]
ON_MARIADB = [*PROJECTS, "tests/sim/test_walk.py", "tests/sim/test_crash.py", "tests/attacks/test_quo.py"]
WITHOUT_DATABASE = [
    f"--ignore=tests/{name}"
    for name in (
        "core/test_bus.py",
        "core/test_outbound.py",
        "glance/test_inspection.py",
        "neutron/test_l2_agent.py",
    )
]
"""What takes seconds there and asks for no database."""
CRASHES = "not test_crash or boot-"
"""Of the crash tests those of a boot; all of them, and all other tests, with ``-- --database mariadb``."""
IN_PROCESS = "not host and not compat"
REAL = (
    ("host and compat rings on one cloud", "cloud.log", "cloud"),
    ("host ring on machines of its own", "host.log", "not cloud"),
)
WITHOUT_REAL = [f"--ignore=tests/{name}" for name in ("sim", "generated")]
"""What takes long to collect and has no real parts."""


def test(options: argparse.Namespace) -> int:
    """All rings that this machine can run, in groups side by side; what cannot run is named with the reason.

    With words for pytest (after ``--``) it is one run, with these words.  ``--chaos``: the long campaigns instead.
    """
    if options.tempest is not None:
        from cumulet.cli import tempest

        return tempest.run(options.tempest)
    words = [word for word in options.words if word not in ("--", "--yes", "-y")]
    if options.chaos:
        words = ["-m", "chaos", "-s", *words]
    skipped = _cannot_run()
    _tell(skipped)
    if words:
        deselect = ["-m", " and ".join(f"not {ring}" for ring in skipped)] if skipped else []
        return subprocess.run(_pytest(*deselect, *words), cwd=HOME, env=environment(), check=False).returncode
    on_mariadb = _pytest(
        "-m", IN_PROCESS, "--database", "mariadb", "-k", CRASHES, *WITHOUT_DATABASE, *ON_MARIADB, polite=True
    )
    aside = [Aside("project and sim rings on MariaDB", "mariadb.log", on_mariadb)]
    if not skipped:
        for title, file, which in REAL:
            real = _pytest("-m", f"(host or compat) and not chaos and {which}", *WITHOUT_REAL)
            aside.append(Aside(title, file, real))
    print("unit, project and sim rings:", flush=True)
    command = _pytest("-m", IN_PROCESS, polite=True)
    code = subprocess.run(command, cwd=HOME, env=environment(), check=False).returncode
    for group in aside:
        code = group.end() or code
    _tell(skipped)
    return code


class Aside:
    """A group of tests that runs beside another one, and speaks when that has spoken."""

    def __init__(self, name: str, file: str, command: list[str]) -> None:
        LOGS.mkdir(exist_ok=True)
        self._name, self._log = name, LOGS / file
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, cwd=HOME, env=environment(), stdout=log, stderr=log)

    def end(self) -> int:
        """Wait for it; its exit code."""
        code = self._process.wait()
        print(f"{self._name}:\n{self._log.read_text()}", flush=True)
        return code


def _pytest(*words: str, polite: bool = False) -> list[str]:
    """``polite``: it works while others wait; those with real parts take longest and wait most."""
    before = ["nice", "-n", "10"] if polite else []
    return [*before, str(BIN / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]


def _tell(skipped: dict[str, str]) -> None:
    for ring, reason in skipped.items():
        print(f"skipped: {ring} ring, {reason}", flush=True)


def check(options: argparse.Namespace) -> int:
    """Format, lint, types, import contracts; every check runs, the exit code says whether all passed."""
    fix = ["--fix"] if options.fix else []
    commands = (
        ("format", ["ruff", "format", *([] if options.fix else ["--check"]), "."]),
        ("lint", ["ruff", "check", *fix, "."]),
        ("types", ["mypy"]),
        ("imports", ["lint-imports"]),
    )
    failed = []
    for name, words in commands:
        done = subprocess.run([BIN / words[0], *words[1:]], cwd=HOME, capture_output=True, text=True, check=False)
        print(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'}")
        if done.returncode:
            failed.append(name)
            print(done.stdout[-6000:] + done.stderr[-2000:])
    return 1 if failed else 0


def environment() -> dict[str, str]:
    """No plug-ins by accident, and the environment's own programs first."""
    return {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }


def _cannot_run() -> dict[str, str]:
    needs = ("ovs-vswitchd", "libvirtd", "qemu-system-x86_64", "dnsmasq", "unshare")
    missing = [tool for tool in needs if shutil.which(tool) is None]
    if os.geteuid() != 0:
        reason = "it needs root"
    elif missing:
        reason = f"{', '.join(missing)} missing"
    else:
        return {}
    return {"host": reason, "compat": reason}
