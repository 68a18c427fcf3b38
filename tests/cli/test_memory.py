"""The parent's memory before it forks; in a process of its own, for nothing of it can be undone."""

import subprocess
import sys

SETTLED = """
import gc, mmap
from cumulet.cli import memory

kept = [bytes(size) for size in range(1, 480) for _ in range(100)]
del kept[::2]
before = {id(one) // memory.POOL for one in kept}
memory.settle()
made = [bytes(size) for size in range(1, 480)]
assert not before & {id(one) // memory.POOL for one in made}, "a hole was left"
assert gc.get_freeze_count() > 1000
places = list(memory._unchanged_mappings())
assert places and all(start % mmap.PAGESIZE == 0 for start, _ in places)
import json, sqlite3  # what was unmapped comes back
print(json.dumps(sqlite3.connect(":memory:").execute("select 1").fetchall()))
"""


def test_what_is_made_after_it_settled_lies_apart_from_what_was_there() -> None:
    done = subprocess.run([sys.executable, "-c", SETTLED], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[[1]]\n", "")
