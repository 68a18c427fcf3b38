"""``POST /servers`` with ``X-Cumulet-Dry-Run: 1``: where the servers would go, and why, without making them.

It goes the same way as a real one, with its checks, quotas and addresses, in a transaction that is never committed;
then it looks with nova-scheduler's eyes and chooses as nova-scheduler does.  Servers that wait for a host already
are not looked at.

Who may not see the hosts of servers gets ``hostId`` for their names, and does not see how much is free on them.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from cumulet.core.db import Transaction
from cumulet.core.http import Json, Reply, Request
from cumulet.neutron import public as neutron
from cumulet.neutron.model import Port
from cumulet.nova import scheduler_view, scheduling
from cumulet.nova.paging import boolean
from cumulet.nova.scheduling import Decision, Verdict
from cumulet.nova.server_views import host_id
from cumulet.nova.tables import servers

HEADER = "X-Cumulet-Dry-Run"


def is_asked(request: Request) -> bool:
    word = request.headers.get(HEADER.lower())
    return word is not None and boolean(word, HEADER)


def rehearse(request: Request, create: Callable[[Transaction], Sequence[str]]) -> Reply:
    """The answer; ``create`` makes the servers in a transaction and gives their ids."""
    with request.db.rehearsal() as tx:
        ids = create(tx)
        wishes = [one.wish for one in scheduler_view.read_unplaced(tx, request.config, servers.c.id.in_(ids))]
        rooms = scheduler_view.read_rooms(tx, request.config)
        members = scheduler_view.read_members(tx, wishes)
        ports = neutron.list_server_ports(tx, ids)
    found = []
    for wish in sorted(wishes, key=lambda wish: ids.index(wish.server_id)):
        verdicts = scheduling.judge(wish, rooms, members)
        (decision,) = scheduling.place([wish], rooms, members=members)
        if wish.group and decision.capacity:
            members.setdefault(wish.group.id, Counter())[decision.capacity.host] += 1
        found.append(_view(request, decision, verdicts, ports.get(wish.server_id, ())))
    return Reply({"dry_run": {"servers": found}}, status=200)


def _view(request: Request, decision: Decision, verdicts: Sequence[Verdict], ports: Sequence[Port]) -> Json:
    chosen = decision.capacity.host if decision.capacity else None
    return {
        **_named(request, chosen),
        "fault": decision.fault or None,
        "claim": decision.wish.claim.by_class() if chosen else {},
        "ports": [
            {"network_id": port.network_id, "fixed_ips": [address.ip for address in port.addresses]}
            for port in ports
        ],
        "hosts": [_verdict(request, verdict) for verdict in verdicts],
    }


def _verdict(request: Request, verdict: Verdict) -> Json:
    document = {**_named(request, verdict.host), "refused_by": verdict.refused_by or None}
    return document | ({"weight": verdict.weight} if _sees_hosts(request) and not verdict.refused_by else {})


def _named(request: Request, host: str | None) -> Json:
    document: Json = {"hostId": host_id(request.context.project_id, host)}
    return document | ({"host": host} if _sees_hosts(request) else {})


def _sees_hosts(request: Request) -> bool:
    return request.allows("os_compute_api:os-extended-server-attributes")
