"""The cloud's own MariaDB: a private server for the controllers, a supervised child in the foreground.

It runs as a user of its own, reads none of the machine's configuration, and listens on a socket that only root and
the cloud's user can reach, on an address besides if it is given one.  `prepare` makes its data directory and
what it does first at each start (`--init-file`): the database, and the cloud's account with the right to that
database and to nothing else.  Both may be repeated; the server may be killed at any time: what was committed
lasts, and its next start takes seconds.

`fast` gives up what makes it so: it is for tests, whose data is nobody's.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ACCOUNT, DATABASE = "cumulet", "cumulet"
PORT = 3306
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MEMORY = (
    "--aria-pagecache-buffer-size=1M",
    "--key-buffer-size=1M",
    "--innodb-log-file-size=48M",
    "--innodb-log-buffer-size=4M",
    "--table-open-cache=1000",
    "--thread-cache-size=16",
    "--performance-schema=off",
)
_SAFE = (
    "--local-infile=0",
    "--skip-symbolic-links",
    "--skip-name-resolve",
    "--skip-log-bin",
    "--max-connections=1500",
    "--max-allowed-packet=64M",
)
_FAST = ("--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--skip-innodb-doublewrite")


class MariadbError(Exception):
    """The server could not be prepared; the message names the tool and its words."""


def socket(run_dir: Path) -> Path:
    return run_dir / "mariadb" / "mariadb.sock"


def prepare(state_dir: Path, run_dir: Path, user: str, client: str, password: str, address: str = "") -> None:
    """The directories, the system tables and the first orders.  `client` is the user whose group may connect."""
    if len(str(socket(run_dir))) > 100:
        raise MariadbError(f"{socket(run_dir)} is too long for a socket's path, at most 100 characters")
    owner, group = _ensure_user(user), pwd.getpwnam(client).pw_gid
    run, data = run_dir / "mariadb", state_dir / "mariadb"
    run.mkdir(parents=True, exist_ok=True)
    os.chown(run, owner, group)
    run.chmod(0o750)
    if not data.exists():
        install(data, user)
    orders = run / "orders.sql"
    descriptor = os.open(orders, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join(_orders(password, address)) + "\n")
    os.chown(orders, owner, -1)


def argv(
    state_dir: Path, run_dir: Path, user: str, cache_mb: int, address: str = "", fast: bool = False
) -> list[str]:
    """The child to supervise."""
    return [
        _program("mariadbd"),
        "--no-defaults",
        f"--user={user}",
        f"--datadir={state_dir}/mariadb",
        f"--socket={socket(run_dir)}",
        f"--pid-file={run_dir}/mariadb/mariadbd.pid",
        f"--init-file={run_dir}/mariadb/orders.sql",
        f"--innodb-buffer-pool-size={cache_mb}M",
        *((f"--bind-address={address}", f"--port={PORT}") if address else ("--skip-networking",)),
        *_MEMORY,
        *_SAFE,
        *(_FAST if fast else ()),
    ]


def install(data: Path, user: str) -> None:
    """The system tables, whole or not at all; only root of this machine may manage them."""
    made = data.with_name("mariadb.new")
    shutil.rmtree(made, ignore_errors=True)
    options = ("--no-defaults", f"--user={user}", f"--datadir={made}", "--skip-test-db")
    command = [_program("mariadb-install-db"), *options, "--auth-root-authentication-method=socket"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env={"PATH": _SYSTEM_PATH},
    )  # fmt: skip
    if done.returncode:
        raise MariadbError(f"mariadb-install-db: {done.stdout.strip()[-1000:]}")
    os.chown(made, pwd.getpwnam(user).pw_uid, -1)
    made.chmod(0o700)
    made.rename(data)


def _orders(password: str, address: str) -> Iterator[str]:
    """What the server does first, each in a line."""
    yield f"create database if not exists {DATABASE};"
    for place in ("localhost", "%"):
        if place == "%" and not address:
            yield f"drop user if exists {ACCOUNT}@'{place}';"
            continue
        yield f"create user if not exists {ACCOUNT}@'{place}' identified by '{password}';"
        yield f"alter user {ACCOUNT}@'{place}' identified by '{password}';"
        yield f"grant all on {DATABASE}.* to {ACCOUNT}@'{place}';"


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")
    if found is None:
        raise MariadbError(f"no {name} on this machine; run tools/setup cluster")
    return found


def _ensure_user(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        pass
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    command = ["useradd", *options, "--shell", "/usr/sbin/nologin", "--", name]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env={"PATH": _SYSTEM_PATH}
    )
    if done.returncode not in (0, 9):  # 9: it is there now
        raise MariadbError(f"useradd {name}: {done.stderr.strip()}")
    return pwd.getpwnam(name).pw_uid
