"""``cumulet bench``: measures the named figures or groups of them and prints each beside its target.

Clouds run in namespaces of their own, with their state on this machine's disk, so that a running cloud is neither
touched nor measured.  The exit code says whether everything could be measured, not whether targets are met.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks import command, page, scale
from benchmarks.figures import TARGETS, Figure, names
from tests.machine import Machine

HOME = Path(__file__).parents[1]
STATE = "/var/lib/cumulet"
OUTSIDE = {"command": command.measure, "scale": scale.measure}
"""Groups that need no machine, or make one of their own."""
ROW = "{:<34}{:>10}  {:<4}{:>5}  {}"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("cumulet bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of: {', '.join(names())}; default: all but scale"
    )
    parser.add_argument("--json", action="store_true", help="a list of objects")
    parser.add_argument("--write", action="store_true", help="also write docs/benchmarks.md; only for all figures")
    options = parser.parse_args(argv)
    if options.write and options.names:
        parser.error("--write is for all figures: the page is of one run")
    chosen = [one for name in options.names for one in TARGETS.get(name, (name,))]
    unknown = set(chosen) - set(names())
    if unknown:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    if not options.json:
        print(ROW.format("name", "value", "unit", "runs", "target"), flush=True)
    found = []
    for figure in measure(chosen or list(page.names())):
        found.append(figure)
        if not options.json:
            mark = {None: "", True: "", False: "  MISSED"}[figure.met]
            print(
                ROW.format(figure.name, f"{figure.value:g}", figure.unit, figure.runs, figure.target + mark),
                flush=True,
            )
    if options.write:
        page.write(found)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    return 0


def measure(wanted: Collection[str]) -> Iterator[Figure]:
    for group, known in TARGETS.items():
        chosen = [name for name in known if name in wanted]
        if chosen and group in OUTSIDE:
            yield from OUTSIDE[group](chosen)
        elif chosen:
            yield from _on_a_machine(group, chosen)


def _on_a_machine(group: str, chosen: list[str]) -> Iterator[Figure]:
    if os.geteuid() != 0:
        sys.exit(f"{', '.join(chosen)}: only root can start a cloud in namespaces of its own")
    with _machine() as machine:
        words = machine.command([sys.executable, "-m", "benchmarks.inside", group, *chosen])
        run = subprocess.Popen(words, cwd=HOME, env=machine.env, stdout=subprocess.PIPE)
        assert run.stdout
        for line in run.stdout:
            yield msgspec.json.decode(line, type=Figure)
        if run.wait():
            sys.exit(f"the group {group!r} could not be measured to its end: exit code {run.returncode}")


@contextmanager
def _machine() -> Iterator[Machine]:
    """A machine whose cloud keeps its state on a real disk: in memory a lasting write would cost nothing."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="cumulet-bench.") as place:
        Path(place).chmod(0o755)
        machine = Machine("bench")
        try:
            machine.run("mkdir", "-p", STATE)
            machine.run("mount", "--bind", place, STATE)
            yield machine
        finally:
            machine.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
