"""The tools that make and read disks.

qemu-img reads what users have uploaded and guests have written, so all of them run with a bound on memory and
time; formats are always said and never probed.  What counts against the bound on memory is what they reserve: each
thread's stack, and with glibc a heap for each thread.  Both are kept small, or a dozen threads would not find room.
"""

import os
import subprocess
from pathlib import Path

from cumulet.core.errors import Retry, Terminal

MEMORY_BYTES, STACK_BYTES, CPU_SECONDS, SECONDS = 1 << 30, 1 << 20, 10, 60


def qemu_img(*arguments: str | Path, seconds: int = 0) -> None:
    run_tool("qemu-img", *arguments, seconds=seconds)


def run_tool(*words: str | Path, seconds: int = 0) -> None:
    """Terminal with the tool's words if it refuses; Retry if the host has no room for the file.

    ``seconds``: how long it may take, where that is longer than to make an empty disk.
    """
    limits = [f"--as={MEMORY_BYTES}", f"--stack={STACK_BYTES}", f"--cpu={seconds or CPU_SECONDS}", "--core=0"]
    try:
        done = subprocess.run(
            ["prlimit", *limits, "--", *words],
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds or SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Retry(f"{words[0]} does not end") from error
    if done.returncode == 0:
        return
    said = done.stderr.strip()[-500:] or f"ended with {done.returncode}"
    if "No space left" in said or "Disk quota" in said:
        raise Retry(f"{words[0]}: {said}")
    raise Terminal(f"Disk cannot be made: {said}")
