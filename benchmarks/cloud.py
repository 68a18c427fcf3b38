"""The whole cloud on one machine, with real agents: start, idle, requests, a real boot."""

import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import bcrypt

from benchmarks import meter, node
from benchmarks.figures import Figure, figure, repeated
from benchmarks.real_boot import measure as measure_boot
from benchmarks.session import BATCHES, Cost, Session, wait_until
from cumulet.cli import child
from cumulet.core.config import Config
from cumulet.host import usage
from cumulet.services import SERVICES

CALM_SECONDS, IDLE_SECONDS = 20.0, 30.0
PAIRS = 40
LISTS = {
    "projects_list_ms": ("identity", "/projects"),
    "flavors_list_ms": ("compute", "/flavors/detail"),
    "networks_list_ms": ("network", "/v2.0/networks"),
    "images_list_ms": ("image", "/v2/images"),
    "servers_list_empty_ms": ("compute", "/servers/detail"),
}
BOOTS = frozenset({"boot_real_overhead_s", "launch_to_ssh_s"})


def measure(names: Collection[str], config: Config) -> Iterator[Figure]:
    """The cloud is there and stopped."""
    if "database_setup_s" in names:
        for named in SERVICES:
            child.load(named)
        yield figure("database_setup_s", repeated(3, lambda: node.database_setup(config)))
    starts = [node.start(config)]
    if "start_healthy_s" in names:
        for _ in range(4):
            node.end()
            starts.append(node.start(config))
        yield figure("start_healthy_s", starts)
    yield from _idle(names, config.run)
    session = Session(config)
    wait_until(lambda: _logged_in(session), 10.0, 0.1, "login")
    cost = Cost(session, lambda: meter.everything(config.run))
    yield from _tokens(names, session, cost)
    for name, (service, path) in LISTS.items():
        if name in names:
            yield from cost.repeated(name, service, session.request(service, "GET", path))
    yield from _ports(names, session, cost)
    yield from _networks(names, session, cost)
    if BOOTS & set(names):
        yield from measure_boot(names, config, session)


def _logged_in(session: Session) -> bool:
    session.login()
    return True


def _idle(names: Collection[str], run_dir: Path) -> Iterator[Figure]:
    if not {"idle_pss_mb", "idle_cpu_percent"} & set(names):
        return
    time.sleep(CALM_SECONDS)
    services, parts = meter.members(run_dir, parts=False), meter.members(run_dir, parts=True)
    if "idle_cpu_percent" in names:
        used = {pid: usage.cpu_of(pid) for pid in (*services.values(), *parts.values())}
        started = time.monotonic()
        time.sleep(IDLE_SECONDS)
        seconds = time.monotonic() - started
        share = {pid: (usage.cpu_of(pid) - before) * 100 / seconds for pid, before in used.items()}
        yield figure("idle_cpu_percent", [sum(share[pid] for pid in services.values())])
        for name, pid in (*services.items(), *parts.items()):
            yield figure(f"{name.replace('-', '_')}_idle_percent", [share[pid]])
    if "idle_pss_mb" in names:
        yield figure("idle_pss_mb", [usage.memory_mb(services.values())])
        for name, pid in (*services.items(), *parts.items()):
            yield figure(f"{name.replace('-', '_')}_pss_mb", [usage.memory_mb([pid])])
        yield figure("dnsmasq_pss_mb", [usage.memory_mb(meter.called("dnsmasq"))])


def _tokens(names: Collection[str], session: Session, cost: Cost) -> Iterator[Figure]:
    if "token_issue_ms" in names:
        rounds = session.config.identity.bcrypt_rounds
        sent, bcrypts, issued = session.login_request(), [], []
        for _ in range(BATCHES):  # in turn, for both depend on what else the machine does
            bcrypts += repeated(3, lambda: _bcrypt_ms(rounds))
            issued.append(cost.batch("identity", [sent] * 5))
        floor = figure("bcrypt_ms", bcrypts)
        yield floor
        yield figure("token_issue_ms", issued, f"≤ {1.1 * floor.value:.1f} (1.1 × bcrypt_ms)")
        yield from cost.latencies("token_issue_ms", "identity", lambda: [sent] * 32)
    if "token_validate_ms" in names:
        check = session.request("identity", "GET", "/auth/tokens", **{"X-Subject-Token": session.token})
        yield from cost.repeated("token_validate_ms", "identity", check)


def _bcrypt_ms(rounds: int) -> float:
    """CPU of one bcrypt of the configured cost: the part of a login that is meant to be dear."""
    started = time.process_time()
    bcrypt.hashpw(b"x" * 44, b"$2b$%02d$" % rounds + b"." * 22)
    return (time.process_time() - started) * 1000


def _ports(names: Collection[str], session: Session, cost: Cost) -> Iterator[Figure]:
    """Ports on a network that DHCP serves: its agent's work counts, too."""
    if not {"port_create_ms", "port_delete_ms"} & set(names):
        return
    network = session.ask("network", "POST", "/v2.0/networks", {"network": {"name": "bench"}})["network"]["id"]
    wish = {"network_id": network, "cidr": "10.1.0.0/16", "ip_version": 4}
    session.ask("network", "POST", "/v2.0/subnets", {"subnet": wish})
    time.sleep(2.0)
    create = session.request("network", "POST", "/v2.0/ports", {"port": {"network_id": network}})

    def made() -> list[bytes]:
        ports = session.ask("network", "GET", f"/v2.0/ports?network_id={network}&fields=id&device_owner=")["ports"]
        return [session.request("network", "DELETE", f"/v2.0/ports/{port['id']}") for port in ports]

    yield from _pairs(names, cost, "port", create, made)
    session.ask("network", "DELETE", f"/v2.0/networks/{network}")


def _pairs(
    names: Collection[str], cost: Cost, what: str, create: bytes, made: Callable[[], list[bytes]]
) -> Iterator[Figure]:
    """Create a batch, delete it, and so on."""
    creations, deletions = [], []
    for _ in range(BATCHES + 1):
        creations.append(cost.batch("network", [create] * PAIRS, settle=1.0))
        deletions.append(cost.batch("network", made(), settle=1.0))
    if f"{what}_create_ms" in names:
        yield figure(f"{what}_create_ms", creations[1:])
        yield from cost.latencies(f"{what}_create_ms", "network", lambda: [create] * PAIRS)
    if f"{what}_delete_ms" in names:
        cost.batch("network", [create] * (4 * PAIRS))
        yield figure(f"{what}_delete_ms", deletions[1:])
        waiting = made()
        half = len(waiting) // 2
        halves = iter((waiting[:half], waiting[half:]))
        yield from cost.latencies(f"{what}_delete_ms", "network", lambda: next(halves))
    for rest in made():
        cost.batch("network", [rest])


def _networks(names: Collection[str], session: Session, cost: Cost) -> Iterator[Figure]:
    if "network_create_delete_ms" not in names:
        return
    create = session.request("network", "POST", "/v2.0/networks", {"network": {"name": "pair"}})

    def made() -> list[bytes]:
        found = session.ask("network", "GET", "/v2.0/networks?name=pair&fields=id")["networks"]
        return [session.request("network", "DELETE", f"/v2.0/networks/{one['id']}") for one in found]

    def pair() -> float:
        return cost.batch("network", [create] * PAIRS) + cost.batch("network", made(), settle=0.5)

    pair()
    yield figure("network_create_delete_ms", repeated(BATCHES, pair))
