"""``cumulet bench``: the measurements of a checkout's ``benchmarks/``, in a process of their own."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parents[3]


def main(options: argparse.Namespace) -> int:
    words = [*options.names, *(f"--{name}" for name in ("json", "write") if getattr(options, name))]
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=HOME,
        env={**os.environ, "PYTHONPATH": _path()},
        check=False,
    ).returncode


def _path() -> str:
    """Benchmarks and tests are no part of the package."""
    return os.pathsep.join(filter(None, (str(HOME), os.environ.get("PYTHONPATH"))))
