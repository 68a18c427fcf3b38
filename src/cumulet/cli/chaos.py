"""``cumulet chaos --sim``: a campaign against a simulated cloud in this process (``sim.chaos``).

Ids and the order of sets come from the seed, so a campaign can be repeated; the latter is fixed when Python starts.
"""

import argparse
import logging
import os
import sys
import time
from pathlib import Path
from random import SystemRandom
from tempfile import TemporaryDirectory

import msgspec

MEMORY = Path("/dev/shm")
TELL_SECONDS = 5.0


def main(options: argparse.Namespace) -> int:
    if not options.sim:
        sys.exit("only simulated clouds yet: cumulet chaos --sim")
    seed = SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    if os.environ.get("PYTHONHASHSEED") != str(seed):
        _begin_again(options, seed)
    from cumulet.sim.chaos import Campaign, Report, repeatable

    logging.getLogger().addHandler(logging.NullHandler())  # what dies on purpose is no news
    told = [time.monotonic()]

    def tell(report: Report) -> None:
        if not options.json and time.monotonic() - told[0] > TELL_SECONDS:
            told[0] = time.monotonic()
            print(f"  {report.rounds} rounds, {report.deaths} deaths, {len(report.problems)} problems", flush=True)

    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as place, repeatable(seed):
        report = Campaign(Path(place), seed).play(options.rounds, tell)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=1).decode())
    else:
        print("\n".join(f"{key.replace('_', ' '):<22}{value}" for key, value in _figures(report).items()))
        print("\n".join(report.problems))
    return 1 if report.problems else 0


def _begin_again(options: argparse.Namespace, seed: int) -> None:
    words = ["chaos", "--sim", "--rounds", str(options.rounds), "--seed", str(seed), *["--json"] * options.json]
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    os.execve(sys.executable, [sys.executable, "-m", "cumulet.cli.main", *words], environment)


def _figures(report: object) -> dict[str, object]:
    return {key: value for key, value in msgspec.to_builtins(report).items() if key != "problems"}
