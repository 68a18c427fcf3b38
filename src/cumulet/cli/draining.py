"""The servers of a node, moved away from it: those that run as they run, those that are off with their disks.

By nova's own API, a few at a time.  Nothing is remembered: who is interrupted begins again, and waits for the moves
that are under way.  What nova refuses, or a move that comes to nothing, leaves the server where it is.
"""

import time
from collections.abc import Callable, Mapping

from cumulet.cli.cloud import Cloud, Json, Refused

TOGETHER = 2
LOOK_SECONDS = 1.0
HOST = "OS-EXT-SRV-ATTR:host"
LIVE, COLD, WAIT = "live", "cold", "wait"
ORDERS: Mapping[str, Json] = {
    LIVE: {"os-migrateLive": {"host": None, "block_migration": "auto"}},
    COLD: {"migrate": None},
}
UNDER_WAY = ("MIGRATING", "RESIZE", "REVERT_RESIZE")
RUNNING = ("ACTIVE", "PAUSED")


def move_servers(
    cloud: Cloud,
    host: str,
    cold: bool,
    tell: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """Move what can be moved; by server id why the others stay.

    ``cold``: running ones that cannot be moved as they run may be shut down for it.
    """
    moving: dict[str, str] = {}
    stays: dict[str, str] = {}
    while True:
        here = {one["id"]: one for one in list_servers(cloud, host)}
        for key in list(moving):
            _follow(cloud, host, key, moving, stays, tell)
        waiting = [one for key, one in here.items() if key not in moving and key not in stays]
        for one in waiting:
            if one["status"] in UNDER_WAY:
                moving[one["id"]] = WAIT
            elif len(moving) < TOGETHER:
                _begin(cloud, one, cold, moving, stays, tell)
        if not moving and all(one["id"] in stays for one in waiting):
            return stays
        pause(LOOK_SECONDS)


def list_servers(cloud: Cloud, host: str) -> list[Json]:
    found: list[Json] = cloud.get("compute", f"/servers/detail?all_tenants=1&host={host}")["servers"]
    return found


def _begin(
    cloud: Cloud, one: Json, cold: bool, moving: dict[str, str], stays: dict[str, str], tell: Callable[[str], None]
) -> None:
    """Order the first move that nova takes."""
    kinds = ([LIVE, COLD] if cold else [LIVE]) if one["status"] in RUNNING else [COLD]
    for kind in kinds:
        try:
            cloud.post("compute", f"/servers/{one['id']}/action", ORDERS[kind])
        except Refused as refusal:
            stays[one["id"]] = refusal.message
            continue
        stays.pop(one["id"], None)
        moving[one["id"]] = kind
        tell(f"{one['id']}  {one['name']}: {'moves as it runs' if kind == LIVE else 'moves with its disk'}")
        return


def _follow(
    cloud: Cloud, host: str, key: str, moving: dict[str, str], stays: dict[str, str], tell: Callable[[str], None]
) -> None:
    """What has become of a move."""
    try:
        one = cloud.get("compute", f"/servers/{key}")["server"]
    except Refused as refusal:
        if refusal.status != 404:
            raise
        del moving[key]  # it was deleted
        return
    if one["status"] in UNDER_WAY:
        return
    kind = moving.pop(key)
    if one["status"] == "VERIFY_RESIZE" and kind == COLD:
        cloud.post("compute", f"/servers/{key}/action", {"confirmResize": None})
    if one[HOST] == host:
        stays[key] = "its move has come to nothing; 'openstack server event list' and 'cumulet why' tell more"
    else:
        tell(f"{key}  {one['name']}: is on {one[HOST]}")
