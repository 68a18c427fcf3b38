"""``up``, ``down`` and ``purge`` one at a time: a second one waits for the first and says so."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cumulet.core.config import Config


def file(config: Config) -> Path:
    """Beside the run directory, for ``down`` takes that away."""
    return config.run.with_name(f"{config.run.name}.lock")


@contextlib.contextmanager
def alone(config: Config, command: str) -> Iterator[None]:
    """Nobody else changes this node's cloud meanwhile.  The kernel frees the lock of whoever dies."""
    with held(file(config), command):
        yield


@contextlib.contextmanager
def held(path: Path, command: str) -> Iterator[None]:
    """Nobody else has the lock of this file meanwhile; its holder may delete the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(_locked(path)) as lock:
        lock.truncate(0)
        lock.write(f"'cumulet {command}' (pid {os.getpid()})\n")
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def _locked(path: Path) -> IO[str]:
    while True:
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)  # it may still be writing who it is
            lock.seek(0)
            print(f"waiting for {lock.read().strip() or 'another cumulet command'} to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock.fileno()).st_nlink:
            return lock
        lock.close()
