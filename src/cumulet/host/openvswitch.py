"""The cloud's own Open vSwitch: a database and two daemons, supervised in the foreground by whoever starts them.

`prepare` makes (or converts) the database while nothing runs; then two children are started with the argument
vectors given here, ovsdb-server first. Their sockets and pid files are in `run_dir`; a client connects to
`database_socket(run_dir)`. Where the machine runs an Open vSwitch of its own, none of this is needed.

The userspace datapath (`netdev`) is for machines whose kernel has no `openvswitch` module. It forwards correctly
but slower, and asks care of the agent: frames lack checksums unless offload is off at their source, and the
host's own stack sees them too unless it is shielded.
"""

import errno
import json
import os
import shutil
import socket
import struct
import subprocess
from typing import Literal, NamedTuple

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"

_DATABASE = "conf.db"
_SOCKET = "db.sock"
_THREADS = {"n-handler-threads": "1", "n-revalidator-threads": "1"}
_TOOL_SECONDS = 30.0
_SOCKET_PATH_MAX = 85  # leaves 22 characters for the longest name of a bridge's socket in sun_path (108)
_LOG = ("-vconsole:warn", "-vsyslog:off", "-vfile:off")
_GENL_CTRL, _CTRL_CMD_GETFAMILY, _CTRL_ATTR_FAMILY_NAME = 0x10, 3, 2
_NETLINK_GENERIC, _NLM_REQUEST, _NLM_ACK, _NLMSG_ERROR = 16, 1, 4, 2
_DATAPATH_FAMILY = b"ovs_datapath\0"


class OpenvswitchError(Exception):
    """The switch could not be prepared; the message names the tool and its words."""


class Command(NamedTuple):
    """A child to supervise: what to execute, and what to add to its environment."""

    argv: list[str]
    env: dict[str, str]


def database_socket(run_dir: str) -> str:
    """Where the database listens, for `Ovsdb`."""
    return os.path.join(run_dir, _SOCKET)


def ovsdb_server(state_dir: str, run_dir: str) -> Command:
    """The database server; started first."""
    argv = [
        "ovsdb-server",
        os.path.join(state_dir, _DATABASE),
        f"--remote=punix:{database_socket(run_dir)}",
        *_common(run_dir, "ovsdb-server"),
    ]
    return Command(argv, environment(state_dir, run_dir))


def ovs_vswitchd(state_dir: str, run_dir: str) -> Command:
    """The switch itself. It waits for the database; it loses all flows when it ends."""
    argv = ["ovs-vswitchd", f"unix:{database_socket(run_dir)}", *_common(run_dir, "ovs-vswitchd")]
    return Command(argv, environment(state_dir, run_dir))


def environment(state_dir: str, run_dir: str) -> dict[str, str]:
    """What makes every ovs-* tool talk to this switch and not to the machine's own."""
    return {"OVS_RUNDIR": run_dir, "OVS_LOGDIR": run_dir, "OVS_DBDIR": state_dir, "OVS_SYSCONFDIR": state_dir}


def prepare(state_dir: str, run_dir: str, system_id: str = "", schema: str = SCHEMA) -> None:
    """Make the directories and the database, or convert it to the installed schema. Call it while nothing runs.

    `system_id` names the host in the database (external_ids:system-id). May be repeated. Raises OpenvswitchError.
    """
    if len(os.path.abspath(run_dir)) > _SOCKET_PATH_MAX:
        raise OpenvswitchError(f"{run_dir} is too long for unix sockets, at most {_SOCKET_PATH_MAX} characters")
    os.makedirs(state_dir, mode=0o750, exist_ok=True)
    os.makedirs(run_dir, mode=0o755, exist_ok=True)
    database = os.path.join(state_dir, _DATABASE)
    if not os.path.exists(database):
        partial = f"{database}.new"
        if os.path.exists(partial):
            os.unlink(partial)
        _tool("create", partial, schema)
        os.replace(partial, database)
    elif _tool("needs-conversion", database, schema).strip() == "yes":
        _tool("convert", database, schema)
    _ensure_root(database, system_id)


def kernel_datapath(load: bool = True) -> bool:
    """Whether the kernel has the Open vSwitch datapath; as root, and with `load`, its module is loaded first."""
    if _datapath_family():
        return True
    modprobe = shutil.which("modprobe")
    if not load or os.geteuid() != 0 or modprobe is None:
        return False
    subprocess.run(
        [modprobe, "--quiet", "openvswitch"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return _datapath_family()


def datapath_type() -> Literal["system", "netdev"]:
    """The datapath that bridges on this machine can have."""
    return "system" if kernel_datapath() else "netdev"


def _common(run_dir: str, name: str) -> list[str]:
    return [
        f"--pidfile={os.path.join(run_dir, name)}.pid",
        f"--unixctl={os.path.join(run_dir, name)}.ctl",
        "--no-chdir",
        *_LOG,
    ]


def _tool(command: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["ovsdb-tool", *_LOG, command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TOOL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OpenvswitchError(f"ovsdb-tool {command} does not end") from error
    except OSError as error:
        raise OpenvswitchError(f"ovsdb-tool {command}: {error.strerror}; install openvswitch-switch") from error
    if done.returncode:
        raise OpenvswitchError(f"ovsdb-tool {command}: {done.stderr.strip()}")
    return done.stdout


def _ensure_root(database: str, system_id: str) -> None:
    """The root row, which ovs-vswitchd needs, written before any server runs; only a change needs the lock."""
    query = {
        "op": "select",
        "table": "Open_vSwitch",
        "where": [],
        "columns": ["external_ids", "other_config"],
    }
    rows = json.loads(_tool("query", database, json.dumps(["Open_vSwitch", query])))[0]["rows"]
    wanted = {"other_config": dict(_THREADS), "external_ids": {"system-id": system_id} if system_id else {}}
    if not rows:
        row = {column: _map(values) for column, values in wanted.items()}
        _tool(
            "transact",
            database,
            json.dumps(["Open_vSwitch", {"op": "insert", "table": "Open_vSwitch", "row": row}]),
        )
        return
    have = {column: dict(rows[0][column][1]) for column in wanted}
    if any(have[column] != {**have[column], **values} for column, values in wanted.items()):
        row = {column: _map({**have[column], **values}) for column, values in wanted.items()}
        update = {"op": "update", "table": "Open_vSwitch", "where": [], "row": row}
        _tool("transact", database, json.dumps(["Open_vSwitch", update]))


def _map(values: dict[str, str]) -> list[object]:
    return ["map", [[key, value] for key, value in sorted(values.items())]]


def _datapath_family() -> bool:
    """Ask the generic-netlink controller for the family; it says ENOENT where there is none."""
    name = struct.pack("=HH", 4 + len(_DATAPATH_FAMILY), _CTRL_ATTR_FAMILY_NAME) + _DATAPATH_FAMILY
    name += b"\0" * (-len(name) % 4)
    body = struct.pack("=BBH", _CTRL_CMD_GETFAMILY, 1, 0) + name
    header = struct.pack("=IHHII", 16 + len(body), _GENL_CTRL, _NLM_REQUEST | _NLM_ACK, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC) as control:
            control.send(header + body)
            answer = control.recv(1 << 16)
    except OSError as error:
        raise OpenvswitchError(f"ask the kernel for its datapath: {error.strerror}") from error
    kind = struct.unpack_from("=H", answer, 4)[0]
    number = -struct.unpack_from("=i", answer, 16)[0] if kind == _NLMSG_ERROR else 0
    if number not in (0, errno.ENOENT):
        raise OpenvswitchError(f"ask the kernel for its datapath: {os.strerror(number)}")
    return number == 0
