"""``/os-instance_usage_audit_log``: which hosts have told the usage of their servers for the last whole month.

None has, as where upstream's ``instance_usage_audit`` is off: usage is worked out from the servers when somebody
asks (``nova.usage``), and no host has anything to tell.
"""

from datetime import UTC, datetime, timedelta

from cumulet.core.errors import BadRequest
from cumulet.core.http import Json, Request, Route
from cumulet.nova.services import list_hosts

_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f")


def list_logs(request: Request) -> Json:
    return {"instance_usage_audit_logs": _document(request, datetime.now(UTC))}


def show_log(request: Request) -> Json:
    return {"instance_usage_audit_log": _document(request, _moment(request.params["before"]))}


def _moment(text: str) -> datetime:
    for form in _FORMATS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise BadRequest(f"Invalid timestamp for date {text[:300]}")


def _document(request: Request, before: datetime) -> Json:
    end = before.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    begin = (end - timedelta(days=1)).replace(day=1) if end.year > 1 else end
    with request.db.read() as tx:
        hosts = sorted(list_hosts(tx))
    return {
        "hosts_not_run": hosts,
        "log": {},
        "num_hosts": len(hosts),
        "num_hosts_done": 0,
        "num_hosts_not_run": len(hosts),
        "num_hosts_running": 0,
        "overall_status": f"0 of {len(hosts)} hosts done. 0 errors.",
        "period_beginning": str(begin.replace(tzinfo=None)),
        "period_ending": str(end.replace(tzinfo=None)),
        "total_errors": 0,
        "total_instances": 0,
    }


POLICY = "os_compute_api:os-instance-usage-audit-log:"
URL = "/v2.1/os-instance_usage_audit_log"
ROUTES = (
    Route("GET", URL, list_logs, POLICY + "list"),
    Route("GET", URL + "/{before}", show_log, POLICY + "show"),
)
