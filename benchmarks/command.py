"""The command line's own time, and placing: choosing hosts, and a whole pass of nova-scheduler on SQLite."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import cumulet.glance.tables
import cumulet.keystone.tables  # noqa: F401  one metadata for all
from benchmarks.figures import Figure, figure, repeated
from cumulet.core import clock
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config
from cumulet.core.db import Database
from cumulet.core.heartbeat import Heartbeat, beat
from cumulet.core.reconcile import Loop
from cumulet.core.tables import metadata
from cumulet.nova.scheduler import Scheduler
from cumulet.nova.scheduling import Room, Wish, place
from cumulet.nova.tables import servers
from cumulet.placement import public as placement
from cumulet.placement.model import DISK_GB, MEMORY_MB, VCPU, Capacity, Inventory, Resources

HOME = Path(__file__).parents[1]
STOCK = {VCPU: Inventory(32, ratio=16.0), MEMORY_MB: Inventory(262144), DISK_GB: Inventory(4000)}
BATCH = 100


def measure(names: Collection[str]) -> Iterator[Figure]:
    if "cli_start_s" in names:
        yield figure("cli_start_s", repeated(11, _command))
    if "placements_1000_hosts_per_s" in names:
        passes = repeated(5, lambda: whole_pass(1000))
        yield figure("placements_1000_hosts_per_s", [BATCH / seconds for seconds in passes])
        yield figure("choose_1000_hosts_ms", repeated(5, lambda: choose(1000)))
    if "placement_10000_hosts_ms" in names:
        yield figure("placement_10000_hosts_ms", [s * 1000 / BATCH for s in repeated(3, lambda: whole_pass(10000))])
        yield figure("choose_10000_hosts_ms", repeated(5, lambda: choose(10000)))


def _command() -> float:
    """Wall-clock seconds of ``cumulet --help``: Python, the parser, no work."""
    started = time.perf_counter()
    subprocess.run([HOME / "cumulet", "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def choose(hosts: int) -> float:
    """CPU milliseconds per server to choose from a view that is ready."""
    view = [Room(Capacity(f"h{number:06}", "", 0, STOCK)) for number in range(hosts)]
    batch = [Wish(str(number), Resources(1, 512, 1)) for number in range(BATCH)]
    return cpu_seconds(lambda: place(batch, view, 1)) * 1000 / BATCH


def whole_pass(hosts: int) -> float:
    """CPU seconds of a pass that places a batch: read, choose, write; servers without ports."""
    with tempfile.TemporaryDirectory() as directory:
        db = Database(f"sqlite:///{Path(directory)}/db", LocalBus())
        metadata.create_all(db.engine)
        with db.transaction() as tx:
            for number in range(hosts):
                beat(tx, "nova-compute", f"h{number:06}", Heartbeat(clock.now(), {}))
                placement.set_inventory(tx, f"h{number:06}", STOCK)
            tx.write(servers.insert(), [_server(number) for number in range(BATCH)])
        return cpu_seconds(Loop(Scheduler(db, Config(), seed=1).reconciler()).run_once)


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _server(number: int) -> dict[str, object]:
    now = clock.now()
    return {
        "id": f"s{number}",
        "project_id": "p",
        "user_id": "u",
        "name": "s",
        "hostname": "s",
        "created_at": now,
        "updated_at": now,
        "flavor": {"name": "tiny", "disk": 1},
        "vcpus": 1,
        "memory_mb": 512,
        "root_gb": 1,
        "reservation_id": "r",
        "power": "on",
        "request_id": "req",
    }
