"""The database as commands that only look read it: where there is none, they say so and make none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cumulet.core.bus import LocalBus
from cumulet.core.config import Config
from cumulet.core.db import Database, Transaction
from cumulet.core.errors import Unavailable


@contextmanager
def reading(config: Config) -> Iterator[Transaction]:
    """A snapshot of all projects' tables.  ``Unavailable`` if there is no database."""
    if not config.controls:
        raise Unavailable(f"this node has no database: ask on the controller, {config.api.controller}")
    file = config.database_url.removeprefix("sqlite:///")
    if file != config.database_url and not Path(file).exists():
        raise Unavailable(f"there is no database in {file}: 'cumulet up' makes it")
    with Database(config.database_url, LocalBus()).read() as tx:
        yield tx
