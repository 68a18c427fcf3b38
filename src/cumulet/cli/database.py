"""The database as commands use it: where there is none, those that look say so and make none."""

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


@contextmanager
def writing(config: Config) -> Iterator[Transaction]:
    """A change by an operator's command; nobody is hinted at it."""
    with Database(config.database_url, LocalBus()).transaction() as tx:
        yield tx
