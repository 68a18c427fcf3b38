"""What a campaign has found: the same figures for simulated hosts and for a lab."""

from collections.abc import Sequence

import msgspec

MOST_PROBLEMS = 20


class Report(msgspec.Struct):
    """``problems``: at most twenty, with their round; ``slowest_recovery_s``: by the clock of that cloud."""

    seed: int
    rounds: int = 0
    requests: int = 0
    deaths: int = 0
    power_cuts: int = 0
    network_cuts: int = 0
    stuck: int = 0
    leaked: int = 0
    lost: int = 0
    silent: int = 0  # a guest of a lab that nothing was done to did not answer
    impossible: int = 0  # simulated hosts insist on some things: that no server runs on two of them
    pings: int = 0  # of guests that nothing was done to
    pings_lost: int = 0
    longest_silence_s: float = 0.0
    slowest_recovery_s: float = 0.0
    problems: list[str] = []

    def add(self, took: float, found: Sequence[str], after: Sequence[str]) -> None:
        """A round is over: how long it took until all was well, and what was not so in the end."""
        self.slowest_recovery_s = max(self.slowest_recovery_s, round(took, 1))
        for problem in found:
            kind = problem.partition(":")[0]
            setattr(self, kind, getattr(self, kind) + 1)
            if len(self.problems) < MOST_PROBLEMS:
                self.problems.append(f"round {self.rounds}: {problem}, after: {', '.join(after)}")
