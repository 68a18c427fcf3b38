"""What must be there before services start: directories, a clean run directory, the database, the first facts.

Everything here may be repeated and is quick when there is nothing to do.
"""

import contextlib
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from cumulet.cli import child, parts
from cumulet.core import certificates, secrets
from cumulet.core.config import Config
from cumulet.services import SERVICES

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DATABASE_SECONDS = 60.0
LIVING = ("node.lock", "keeper.pid")
"""Made since the boot, by whoever starts this node."""
MIGRATIONS = Path(__file__).parent.parent / "migrations"


def user(config: Config) -> None:
    """The system user that API and controller services run as."""
    try:
        pwd.getpwnam(config.node.user)
    except KeyError:
        options = ["--system", "--user-group", "--no-create-home", "--home-dir", config.node.state_dir]
        subprocess.run(["useradd", *options, "--shell", "/usr/sbin/nologin", "--", config.node.user], check=True)


def directories(config: Config) -> None:
    """State, run and log directories with the owners and modes that their users need.

    The tops are root's, who reads orders there: the owner of a directory may put another file in a file's place.
    """
    user(config)
    entry = pwd.getpwnam(config.node.user)
    own, root = (entry.pw_uid, entry.pw_gid), (0, 0)
    for path, mode, owner in (
        (config.etc, 0o755, root),
        (config.etc / "policy.d", 0o755, root),
        (config.state, 0o755, root),
        *(_controllers(config, own) if config.controls else ()),
        (config.run, 0o755, root),
        (config.run / "bus", 0o770, own),
        (config.run / "status", 0o750, (0, entry.pw_gid)),
        (config.run / "parts", 0o755, root),
        (config.logs, 0o750, own),
    ):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        os.chown(path, *owner)
    epoch = config.run / "guests.epoch"
    if not epoch.exists():
        epoch.write_text(str(uuid.uuid4()))  # guests that ran before this file was made were ended, and come back
    _secrets(config)
    if config.controls:
        for path in (secrets.path(config.etc), *(config.state / "db").iterdir()):
            os.chown(path, *own)  # root may have brought them back from a backup
    if config.tls.on:
        _certificates(config, entry.pw_gid)


def _controllers(config: Config, own: tuple[int, int]) -> tuple[tuple[Path, int, tuple[int, int]], ...]:
    """Directories that only controller services need."""
    from cumulet.keystone import keys

    return (
        *((place, 0o700, own) for place in keys.directories(config)),
        (config.state / "db", 0o700, own),
        (config.state / "images", 0o750, own),
    )


def _secrets(config: Config) -> None:
    """A controller that is alone makes the cloud's secrets; every other node is given what it may have."""
    alone = config.controls and len(config.api.controllers) < 2
    if not alone and not secrets.path(config.etc).exists():
        raise SystemExit(f"{secrets.path(config.etc)} is missing: it comes from the first controller")
    if alone:
        secrets.ensure(config.etc)
    elif not config.controls:
        secrets.load_host(config.etc, config.node.name)
    if config.controls and str(config.database_password_file) in config.database_url:
        _database_password(config)


def _database_password(config: Config) -> None:
    file = config.database_password_file
    words = f"[client]\npassword={secrets.load(config.etc).database_password}\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as written:
        written.write(words)
    os.chown(file, pwd.getpwnam(config.node.user).pw_uid, -1)


def _certificates(config: Config, group: int) -> None:
    authority = secrets.load_host(config.etc, config.node.name).authority
    if config.controls:
        authority = secrets.load(config.etc).authority
    if not authority:
        place = secrets.path(config.etc)
        raise SystemExit(f"{place} has no certificate authority: it comes from the first controller")
    certificates.prepare(config, authority, group if config.controls else None)


def after_reboot(config: Config) -> None:
    """Empty the run directory of what a machine left that lost power: pids in it may be strangers' now."""
    boot_id = BOOT_ID.read_text().strip()
    kept = config.run / "boot_id"
    if kept.exists() and kept.read_text() == boot_id:
        _forget_hints(config)
        return
    for entry in config.run.iterdir():
        if entry.name in LIVING:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    directories(config)
    kept.write_text(boot_id)


def _forget_hints(config: Config) -> None:
    """Sockets of processes of an earlier run; whoever still lives is found by the passes."""
    shutil.rmtree(config.run / "bus")
    directories(config)


def database(config: Config) -> None:
    """The schema at its newest and keystone's first rows, made as the cloud's user in a child process."""
    parent, pid = os.getpid(), os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if status:
            raise SystemExit("the database could not be prepared")
        return
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        known = secrets.load(config.etc)
        child.become(config.node.user)
        parts.die_with_parent(parent)
        with _alone_in_database(config):
            migrate(config)
            _bootstrap(config, known)
        code = 0
    except BaseException as error:
        import logging

        logging.getLogger("cumulet.database").exception("cannot prepare the database: %s", error)
    finally:
        os._exit(code)


@contextlib.contextmanager
def _alone_in_database(config: Config) -> Iterator[None]:
    """Of several controllers that start at once one goes first; a server may still be starting, or not be reached.

    SystemExit if it does not answer.  SQLite is this node's alone, and has its own lock.
    """
    if config.database_url.startswith("sqlite"):
        yield
        return
    from cumulet.core import engines

    engine, deadline = engines.make(config.database_url), time.monotonic() + DATABASE_SECONDS
    trouble = "another controller prepares it"
    while time.monotonic() < deadline:
        try:
            with engine.connect() as connection:
                if connection.exec_driver_sql("select get_lock('cumulet.schema', 1)").scalar():
                    yield
                    return
        except engines.failures(engine) as error:
            trouble = str(error)
            time.sleep(0.1)
    raise SystemExit(f"the database cannot be had: {trouble}")


def newest_revision() -> str:
    """The newest migration, by its file's number."""
    return max(path.stem.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def migrate(config: Config) -> None:
    """Bring the schema to the newest revision; Alembic is loaded only if there is something to do."""
    if _revision(config) == newest_revision():
        return
    from alembic import command
    from alembic.config import Config as AlembicConfig

    alembic = AlembicConfig()
    alembic.set_main_option("script_location", str(MIGRATIONS))
    alembic.set_main_option("sqlalchemy.url", config.database_url.replace("%", "%%"))
    command.upgrade(alembic, "head")


def _revision(config: Config) -> str:
    """The schema's revision where it can be read without Alembic (SQLite); empty: find out by Alembic."""
    path = config.database_url.removeprefix("sqlite:///")
    if path == config.database_url or not Path(path).exists():
        return ""
    connection = sqlite3.connect(path)
    try:
        row = connection.execute("select version_num from alembic_version").fetchone()
    except sqlite3.OperationalError:
        return ""
    finally:
        connection.close()
    return str(row[0]) if row else ""


def _bootstrap(config: Config, known: secrets.Secrets) -> None:
    from cumulet.core.bus import LocalBus
    from cumulet.core.db import Database
    from cumulet.core.facts import ensure_cloud_id
    from cumulet.keystone.model import CatalogEntry
    from cumulet.keystone.public import bootstrap

    catalog = [
        CatalogEntry(kind, name, config.public_url(service.port) + path)
        for service in SERVICES
        for kind, name, path in service.catalog
    ]
    with Database(config.database_url, LocalBus()).transaction() as tx:
        bootstrap(tx, config, known.admin_password, catalog)
        ensure_cloud_id(tx)
