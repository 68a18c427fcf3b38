"""``/extensions``: which of the first API's extensions there are here; clients ask before they use them."""

from cumulet.core.errors import NotFound
from cumulet.core.http import Json, Request, Route

UPDATED = "2014-12-03T00:00:00Z"
_NAMES = {
    "OS-DCF": "DiskConfig",
    "OS-EXT-AZ": "ExtendedAvailabilityZone",
    "OS-EXT-IPS": "ExtendedIps",
    "OS-EXT-IPS-MAC": "ExtendedIpsMac",
    "OS-EXT-SRV-ATTR": "ExtendedServerAttributes",
    "OS-EXT-STS": "ExtendedStatus",
    "OS-FLV-EXT-DATA": "FlavorExtraData",
    "OS-SCH-HNT": "SchedulerHints",
    "OS-SRV-USG": "ServerUsage",
    "os-aggregates": "Aggregates",
    "os-attach-interfaces": "AttachInterfaces",
    "os-availability-zone": "AvailabilityZone",
    "os-config-drive": "ConfigDrive",
    "os-console-auth-tokens": "ConsoleAuthTokens",
    "os-console-output": "ConsoleOutput",
    "os-consoles": "Consoles",
    "os-flavor-access": "FlavorAccess",
    "os-flavor-extra-specs": "FlavorExtraSpecs",
    "os-flavor-manage": "FlavorManage",
    "os-floating-ip-pools": "FloatingIpPools",
    "os-floating-ips": "FloatingIps",
    "os-hosts": "Hosts",
    "os-hypervisors": "Hypervisors",
    "os-instance-actions": "InstanceActions",
    "os-instance-usage-audit-log": "InstanceUsageAuditLog",
    "os-keypairs": "Keypairs",
    "os-lock-server": "LockServer",
    "os-multiple-create": "MultipleCreate",
    "os-networks": "Networks",
    "os-quota-class-sets": "QuotaClasses",
    "os-quota-sets": "Quotas",
    "os-remote-consoles": "RemoteConsoles",
    "os-security-groups": "SecurityGroups",
    "os-server-diagnostics": "ServerDiagnostics",
    "os-server-external-events": "ServerExternalEvents",
    "os-server-groups": "ServerGroups",
    "os-server-password": "ServerPassword",
    "os-server-start-stop": "ServerStartStop",
    "os-services": "Services",
    "os-simple-tenant-usage": "SimpleTenantUsage",
    "os-used-limits": "UsedLimits",
    "os-user-data": "UserData",
}


def _view(alias: str) -> Json:
    name = _NAMES[alias]
    return {"alias": alias, "name": name, "description": name, "links": [], "namespace": "", "updated": UPDATED}


def list_extensions(request: Request) -> Json:
    return {"extensions": [_view(alias) for alias in _NAMES]}


def show_extension(request: Request) -> Json:
    alias = request.params["alias"]
    if alias not in _NAMES:
        raise NotFound("The resource could not be found.")
    return {"extension": _view(alias)}


ROUTES = (
    Route("GET", "/v2.1/extensions", list_extensions, "os_compute_api:extensions"),
    Route("GET", "/v2.1/extensions/{alias}", show_extension, "os_compute_api:extensions"),
)
