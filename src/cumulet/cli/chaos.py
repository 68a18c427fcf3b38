"""``cumulet chaos``: a campaign against a lab (``lab_chaos``), with ``--sim`` against a cloud in this process.

Of the simulated cloud ids and the order of sets come from the seed, so that a campaign can be repeated; the latter
is fixed when Python starts.  Of a lab only what is asked and what is broken comes from the seed.
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

from cumulet.host.machine import MachineError
from cumulet.sim.report import Report

MEMORY = Path("/dev/shm")
TELL_SECONDS = 5.0
ROUNDS, SIM_ROUNDS = 50, 1000


def main(options: argparse.Namespace) -> int:
    seed = SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    logging.getLogger().addHandler(logging.NullHandler())  # what dies on purpose is no news
    report = _simulated(options, seed) if options.sim else _lab(options, seed)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=1).decode())
    else:
        print("\n".join(f"{key.replace('_', ' '):<22}{value}" for key, value in _figures(report).items()))
        print("\n".join(report.problems))
    return 1 if report.problems else 0


def _lab(options: argparse.Namespace, seed: int) -> Report:
    from cumulet.cli import lab, lab_chaos

    if os.geteuid() != 0:
        sys.exit("cumulet chaos needs root: it enters the lab's namespaces")

    def tell(text: str) -> None:
        if not options.json:
            print(f"  {text}", flush=True)

    where = lab.find(options.name)
    try:
        with lab.alone(options.name, "chaos"):
            return lab_chaos.LabCampaign(where, seed, tell).play(options.rounds or ROUNDS)
    except MachineError as error:
        sys.exit(str(error))


def _simulated(options: argparse.Namespace, seed: int) -> Report:
    rounds = options.rounds or SIM_ROUNDS
    if os.environ.get("PYTHONHASHSEED") != str(seed):
        _begin_again(options, rounds, seed)
    from cumulet.sim.chaos import Campaign, repeatable

    told = [time.monotonic()]

    def tell(report: Report) -> None:
        if not options.json and time.monotonic() - told[0] > TELL_SECONDS:
            told[0] = time.monotonic()
            print(f"  {report.rounds} rounds, {report.deaths} deaths, {len(report.problems)} problems", flush=True)

    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as place, repeatable(seed):
        return Campaign(Path(place), seed).play(rounds, tell)


def _begin_again(options: argparse.Namespace, rounds: int, seed: int) -> None:
    words = ["chaos", "--sim", "--rounds", str(rounds), "--seed", str(seed), *["--json"] * options.json]
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    os.execve(sys.executable, [sys.executable, "-m", "cumulet.cli.main", *words], environment)


def _figures(report: Report) -> dict[str, object]:
    return {key: value for key, value in msgspec.to_builtins(report).items() if key != "problems"}
