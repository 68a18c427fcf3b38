"""What is measured: every figure's name, unit and target, and the group of benchmarks that measures it."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import TypeVar

import msgspec

T = TypeVar("T")


class Figure(msgspec.Struct, frozen=True):
    """One line of the table.  ``runs``: how many measurements ``value`` is the median of."""

    name: str
    value: float
    unit: str
    runs: int = 1
    target: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        if not self.target:
            return None
        sign, number = self.target.split()[:2]
        return self.value <= float(number) if sign == "≤" else self.value >= float(number)


TARGETS: dict[str, dict[str, str]] = {
    "command": {
        "cli_start_s": "≤ 0.15",
        "placements_1000_hosts_per_s": "≥ 500",
        "placement_10000_hosts_ms": "≤ 10",
    },
    "cloud": {
        "database_setup_s": "≤ 2",
        "start_healthy_s": "≤ 3",
        "idle_pss_mb": "≤ 120",
        "idle_cpu_percent": "≤ 1",
        "token_issue_ms": "≤ 1.1 × bcrypt_ms",
        "token_validate_ms": "≤ 0.5",
        "projects_list_ms": "≤ 1",
        "flavors_list_ms": "≤ 1",
        "networks_list_ms": "≤ 1",
        "images_list_ms": "≤ 1",
        "servers_list_empty_ms": "≤ 1",
        "port_create_ms": "≤ 8",
        "port_delete_ms": "≤ 8",
        "network_create_delete_ms": "≤ 10",
        "boot_real_overhead_s": "≤ 0.3",
        "launch_to_ssh_s": "≤ raw_boot_s + 2",
    },
    "simulated": {
        "boot_sim_s": "≤ 0.15",
        "boot_sim_cpu_s": "≤ 0.06",
        "boots_sim_100_per_s": "≥ 50",
        "deletes_sim_100_per_s": "≥ 50",
        "servers_list_100_ms": "≤ 6",
        "servers_list_1000_ms": "≤ 40",
        "ports_list_1000_ms": "≤ 40",
    },
    "scale": {
        "scale_idle_cores": "≤ 1",
        "scale_boot_100_s": "≤ 10",
        "scale_list_1000_ms": "≤ 40",
        "scale_controller_mb": "≤ 1024",
    },
}
"""Group → what it measures → target.  ``cloud``: the whole cloud with real agents; ``simulated``: real controller
services, with the hosts' agents on hosts made of dictionaries; ``scale``: the same with very many of them, only
measured when it is named; ``command``: neither."""

LIMITS: dict[str, str] = {
    "idle_pss_mb": "each named service is a process. What processes have in common counts once: some 70 MB of code "
    "and data in the parent, 12 of them SQLAlchemy. Of its own a service has 3 MB while it has nothing to do, and "
    "6 to 16 MB once its loops pass or its API answers: most of that are the parent's pages in which little but "
    "reference counts has changed, which CPython 3.11 writes into every object that it uses "
    "([decision 13](decisions/0013-what-is-shared-before-the-fork.md)).",
    "servers_list_1000_ms": "of the handler's time a third is the query of the servers with their statuses (58 "
    "columns of a thousand rows, and each is a Python object), a third are their ports, with addresses, groups and "
    "networks in four more queries, and a third is making documents of that and sending 1.1 MB. Alone, three times "
    "on one day, it was 40, 43 and 46 ms; in a whole run 44 and 51",
    "boots_sim_100_per_s": "CPU: with two cores 50 boots a second leave 0.04 s of CPU to each, for the services, "
    "the agents of ten hosts and the client together. With each server every host of its security group is told of "
    "one more member, and reads and plans its wiring anew",
    "token_validate_ms": "the request itself: off the socket, a thread, one query that asks whether anything of "
    "identity has changed, its line in the log. Runs on this machine differ by a fifth either way",
    "boot_sim_cpu_s": "what each of six services and two agents does once for each boot; runs on this machine "
    "differ by a fifth either way",
    "projects_list_ms": "half of it is the request itself, as in token_validate_ms; runs on this machine differ by "
    "a fifth either way",
    "servers_list_empty_ms": "half of it is the request itself, as in token_validate_ms; runs on this machine "
    "differ by a fifth either way",
    "servers_list_100_ms": "as servers_list_1000_ms, and the request itself",
    "images_list_ms": "two processes answer, glance-api and glance-registry, each with a request of its own",
}
"""Name → what limits it, for the page of figures; only of those that are known to miss their targets."""

UNITS = {"cores": "cores", "ms": "ms", "s": "s", "percent": "%", "mb": "MB"}


def figure(name: str, values: Sequence[float], target: str = "") -> Figure:
    """The median of ``values``; the unit is in the name."""
    unit = "1/s" if name.endswith("_per_s") else UNITS[name.rsplit("_", 1)[-1]]
    known = next((group[name] for group in TARGETS.values() if name in group), "")
    return Figure(name, round(median(values), 4), unit, len(values), target or known)


def repeated(times: int, work: Callable[[], T]) -> list[T]:
    return [work() for _ in range(times)]


def group_of(name: str) -> str:
    return next(group for group, names in TARGETS.items() if name in names)


def names() -> Iterator[str]:
    for group in TARGETS.values():
        yield from group
