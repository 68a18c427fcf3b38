"""A thousand hosts and twenty thousand servers: ``cumulet sim`` measures, and here its figures get their names."""

import subprocess
import sys
from collections.abc import Iterator, Sequence

import msgspec

from benchmarks.figures import Figure, figure
from benchmarks.node import CUMULET

HOSTS, SERVERS = 1000, 20_000
FIELDS = {
    "idle_cores": "scale_idle_cores",
    "boot_100_s": "scale_boot_100_s",
    "list_1000_ms": "scale_list_1000_ms",
    "controller_mb": "scale_controller_mb",
    "hosts_idle_cores": "scale_hosts_idle_cores",
    "fill_s": "scale_fill_s",
    "database_mb": "scale_database_mb",
}
"""Of ``cli.simulation.Figures``."""


def measure(names: Sequence[str]) -> Iterator[Figure]:
    words = ["sim", "--hosts", str(HOSTS), "--servers", str(SERVERS), "--once", "--json"]
    done = subprocess.run([*CUMULET, *words], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"the simulation did not come to its end: exit code {done.returncode}")
    found = msgspec.json.decode(done.stdout)
    assert found["listed"] == 1000, f"{found['listed']} servers in the list"
    for field, name in FIELDS.items():
        yield figure(name, [found[field]])
