"""Structured logs: one JSON line per record in the service's file, a readable line on a terminal.

Every line carries the request id it belongs to.  Text from users is one line of printable characters, so that
nobody can forge a line; secrets are ``Secret`` and print as ``***``, and what looks like a token is cut out.
"""

import logging
import re
import sys
from logging.handlers import WatchedFileHandler
from pathlib import Path

import msgspec

from cumulet.core import clock
from cumulet.core.context import REQUEST_ID

_TOKEN = re.compile(r"gAAAA[A-Za-z0-9_=-]{20,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]|\n")
_encode = msgspec.json.Encoder().encode


def clean(text: str) -> str:
    """``text`` as one line without control characters and tokens."""
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], _TOKEN.sub("***", text))


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
            line["traceback"] = _TOKEN.sub("***", self.formatException(record.exc_info))
        return _encode(line).decode()


class TerminalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{clock.now()[11:23]} {record.levelname:<7} {record.name}: {clean(record.getMessage())}"
        if record.exc_info:
            text += "\n" + _TOKEN.sub("***", self.formatException(record.exc_info))
        return text


def setup(service: str, directory: Path | None, level: int = logging.INFO) -> None:
    """Send this process's logs to ``directory/service.log``, or to the terminal if there is none."""
    handler: logging.Handler
    if directory is None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(TerminalFormatter())
    else:
        handler = WatchedFileHandler(directory / f"{service}.log")
        handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn", "uvicorn.error", "asyncio", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
