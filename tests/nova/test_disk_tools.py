"""What bounds the tools that make disks leaves them room for their threads."""

import sys

import pytest

from cumulet.core.errors import Terminal
from cumulet.nova.compute.tools import run_tool

THREADS = """
import threading
gate = threading.Barrier(65)
def work():
    kept = bytearray(1 << 20)
    gate.wait(30)
for _ in range(64):
    threading.Thread(target=work).start()
gate.wait(30)
"""
GREEDY = "bytearray(2 << 30)"


def test_sixty_four_threads_find_room() -> None:
    run_tool(sys.executable, "-c", THREADS)


def test_a_greedy_tool_is_refused() -> None:
    with pytest.raises(Terminal, match="MemoryError"):
        run_tool(sys.executable, "-c", GREEDY)
