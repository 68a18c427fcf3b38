"""CPU time of placing a batch of servers: choosing alone, and a whole pass of nova-scheduler on SQLite.

    python -m benchmarks.placing [hosts] [servers]

Run by hand; prints milliseconds per server.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cumulet.glance.tables
import cumulet.keystone.tables  # noqa: F401  one metadata for all
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

STOCK = {VCPU: Inventory(32, ratio=16.0), MEMORY_MB: Inventory(262144), DISK_GB: Inventory(4000)}


def cpu_ms(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return (time.process_time() - started) * 1000


def choose(hosts: int, count: int) -> float:
    """Milliseconds per server to choose from a view that is ready."""
    view = [Room(Capacity(f"h{number:06}", "", 0, STOCK)) for number in range(hosts)]
    batch = [Wish(str(number), Resources(1, 512, 1)) for number in range(count)]
    return cpu_ms(lambda: place(batch, view, 1)) / count


def whole_pass(hosts: int, count: int) -> float:
    """Milliseconds per server of a pass: read, choose, write; servers without ports."""
    with tempfile.TemporaryDirectory() as directory:
        db = Database(f"sqlite:///{Path(directory)}/db", LocalBus())
        metadata.create_all(db.engine)
        with db.transaction() as tx:
            for number in range(hosts):
                beat(tx, "nova-compute", f"h{number:06}", Heartbeat(clock.now(), {}))
                placement.set_inventory(tx, f"h{number:06}", STOCK)
            tx.write(servers.insert(), [_server(number) for number in range(count)])
        loop = Loop(Scheduler(db, Config(), seed=1).reconciler())
        return cpu_ms(loop.run_once) / count


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
        "flavor": {"name": "tiny"},
        "vcpus": 1,
        "memory_mb": 512,
        "root_gb": 1,
        "reservation_id": "r",
        "power": "on",
        "request_id": "req",
    }


def main(arguments: list[str]) -> None:
    hosts, count = (int(text) for text in [*arguments, "1000", "100"][:2])
    print(f"{hosts} hosts, {count} servers; CPU per server:")
    print(f"  choose      {choose(hosts, count):8.3f} ms")
    print(f"  whole pass  {whole_pass(hosts, count):8.3f} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
