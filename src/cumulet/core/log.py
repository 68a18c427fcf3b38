"""Structured logs: one JSON line per record in the service's file, a readable line on a terminal.

Every line carries the request id it belongs to.  Text from users is one line of printable characters, so that
nobody can forge a line; secrets are ``Secret`` and print as ``***``, and what looks like a token is cut out.
"""

import logging
import os
import re
import sys
import time
from pathlib import Path

import msgspec

from cumulet.core import clock
from cumulet.core.context import REQUEST_ID

_TOKEN = re.compile(r"gAAAA[A-Za-z0-9_=-]{20,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|\n")
_encode = msgspec.json.Encoder().encode
LOOK_SECONDS = 1.0
"""How often is looked whether the file was moved away (rotated)."""


def clean(text: str) -> str:
    """``text`` as one line without control characters and tokens."""
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], _TOKEN.sub("***", text))


def clean_lines(text: str) -> str:
    """The same for a traceback: its lines stay, what an error quotes in them makes no further ones."""
    return "\n".join(clean(line) for line in text.split("\n"))


class JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": clock.now(),
            "service": self._service,
            "level": record.levelname,
            "logger": record.name,
            "request_id": REQUEST_ID.get(),
            "message": clean(record.getMessage()),
        }
        if record.exc_info:
            line["traceback"] = clean_lines(self.formatException(record.exc_info))
        return _encode(line).decode()


class LineFile(logging.Handler):
    """Appends each record to a file in one write; a file that was moved away is made anew."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._looked_at = 0.0
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if time.monotonic() - self._looked_at > LOOK_SECONDS:
                self._look()
            os.write(self._descriptor, f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        os.close(self._descriptor)
        super().close()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        mine = os.fstat(self._descriptor)
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            os.close(self._descriptor)
            self._open()


class TerminalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{clock.now()[11:23]} {record.levelname:<7} {record.name}: {clean(record.getMessage())}"
        if record.exc_info:
            text += "\n" + clean_lines(self.formatException(record.exc_info))
        return text


def setup(service: str, directory: Path | None, level: int = logging.INFO) -> None:
    """Send this process's logs to ``directory/service.log``, or to the terminal if there is none."""
    handler: logging.Handler
    if directory is None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(TerminalFormatter())
    else:
        handler = LineFile(directory / f"{service}.log")
        handler.setFormatter(JsonFormatter(service))
    _leave_out_what_no_line_shows()
    root = logging.getLogger()
    root.handlers[:] = [handler]
    _set_level(root, level)
    for noisy in ("uvicorn", "uvicorn.error", "asyncio", "alembic", "websockets"):
        _set_level(logging.getLogger(noisy), logging.WARNING)


def _set_level(logger: logging.Logger, level: int) -> None:
    """Only if it has another one: a change is told to every logger, which a forked child had better not touch."""
    if logger.level != level:
        logger.setLevel(level)


def _leave_out_what_no_line_shows() -> None:
    """Where in the source a record was made, and by which thread: found out anew for each record otherwise."""
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
