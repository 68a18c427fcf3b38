"""The host's uptime in the words of uptime(1), which is what the hypervisor API has and its clients take apart.

Read without a process: from the kernel, and who is logged in from utmp(5), which not every host keeps.
"""

import os
import struct
from datetime import datetime
from pathlib import Path

UTMP = Path("/run/utmp")
RECORD = struct.Struct("=hxxi32s4s32s256s8x4x4x16x20x")
USER_PROCESS = 7


def read_uptime(utmp: Path = UTMP) -> str:
    seconds = float(Path("/proc/uptime").read_text().split()[0])
    users = count_users(utmp.read_bytes() if utmp.exists() else b"")
    return say(datetime.now(), seconds, users, os.getloadavg())


def count_users(records: bytes) -> int:
    whole = len(records) // RECORD.size * RECORD.size
    return sum(kind == USER_PROCESS for kind, *_ in RECORD.iter_unpack(records[:whole]))


def say(now: datetime, seconds: float, users: int, load: tuple[float, float, float]) -> str:
    days, rest = divmod(int(seconds), 86400)
    hours, minutes = rest // 3600, rest % 3600 // 60
    since = f"{hours:2}:{minutes:02}" if hours else f"{minutes} min"
    if days:
        since = f"{days} day{'s' * (days != 1)}, {since}"
    loads = ", ".join(f"{each:.2f}" for each in load)
    return f" {now:%H:%M:%S} up {since},  {users} user{'s' * (users != 1)},  load average: {loads}"
