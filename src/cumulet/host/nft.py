"""nftables by libnftables through ctypes: whole tables replaced in one transaction.

An `Nft` belongs to the namespace in which it was made. Each command runs there again, because the library
opens further sockets (device names, a retried dump) in the namespace of the calling thread. The library keeps
state that is common to all its contexts, so one lock of the process serialises all commands.

What to mind in the text: blocks are written over several lines (`{ ...; }` on one line fails in places), `fwd`,
`ct` and other keywords are no chain names. A table is replaced whole, so elements that were added to its sets at
run time are lost.
"""

import ctypes
import hashlib
import json
import os
import re
import threading
from typing import Any, Self

from cumulet.host import netns

LIBRARY = "libnftables.so.1"
FAMILIES = frozenset(("ip", "ip6", "inet", "arp", "bridge", "netdev"))

_JSON_OUTPUT = 1 << 4
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,120}")
_SEAL = "seal_"

_lock = threading.Lock()
_library: ctypes.CDLL | None = None


class NftError(Exception):
    """nftables refused a command; the message is the tool's own."""


def _load() -> ctypes.CDLL:
    global _library
    with _lock:
        if _library is None:
            try:
                library = ctypes.CDLL(LIBRARY)
            except OSError as error:
                raise NftError(f"{LIBRARY} cannot be loaded, install libnftables: {error}") from error
            library.nft_ctx_new.restype = ctypes.c_void_p
            library.nft_ctx_new.argtypes = [ctypes.c_uint32]
            library.nft_ctx_free.argtypes = [ctypes.c_void_p]
            library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
            library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
            for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
                getattr(library, name).argtypes = [ctypes.c_void_p]
            for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
                getattr(library, name).argtypes = [ctypes.c_void_p]
                getattr(library, name).restype = ctypes.c_char_p
            _library = library
        return _library


def _table(family: str, name: str) -> str:
    if family not in FAMILIES or not _NAME.fullmatch(name):
        raise NftError(f"bad nftables table {family!r} {name!r}")
    return f"table {family} {name}"


class Nft:
    """A libnftables context of the namespace in which it was made; a context manager, safe for threads."""

    def __init__(self) -> None:
        self._library = _load()
        self._netns = netns.open_current()
        with _lock:
            self._context: int | None = self._library.nft_ctx_new(0)
            if not self._context:
                os.close(self._netns)
                raise NftError("libnftables gives no context (is this root?)")
            self._library.nft_ctx_buffer_output(self._context)
            self._library.nft_ctx_buffer_error(self._context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with _lock:
            if self._context is not None:
                self._library.nft_ctx_free(self._context)
                os.close(self._netns)
                self._context = None

    def run(self, text: str) -> str:
        """Run commands as one transaction, all or nothing; what they print. NftError has the tool's words."""
        return self._run(text, 0)

    def list_json(self, command: str = "list ruleset") -> list[dict[str, Any]]:
        """The objects that a `list` command gives, as in libnftables-json(5), without the metainfo."""
        objects: list[dict[str, Any]] = json.loads(self._run(command, _JSON_OUTPUT) or '{"nftables": []}')[
            "nftables"
        ]
        return [entry for entry in objects if "metainfo" not in entry]

    def tables(self) -> set[tuple[str, str]]:
        """(family, name) of every table in the namespace."""
        return {(e["table"]["family"], e["table"]["name"]) for e in self.list_json("list tables")}

    def replace_table(self, family: str, name: str, body: str) -> None:
        """Put this table in the place of the one of that name, if any, with no moment in between."""
        table = _table(family, name)
        self.run(f"add {table}\ndelete {table}\n{table} {{\n{body}\n}}\n")

    def ensure_table(self, family: str, name: str, body: str) -> bool:
        """As `replace_table`, but only when the table there was not made from this very text; True when it changed.

        The text's digest is the name of an empty chain in the table, so that nobody need remember it. A rule that
        somebody deleted by hand out of the table is not noticed.
        """
        seal = _SEAL + hashlib.blake2b(body.encode(), digest_size=16).hexdigest()
        _table(family, name)
        if any(
            (e["chain"]["family"], e["chain"]["table"], e["chain"]["name"]) == (family, name, seal)
            for e in self.list_json(f"list chains {family}")
            if "chain" in e
        ):
            return False
        self.replace_table(family, name, f"{body}\nchain {seal} {{\n}}")
        return True

    def delete_table(self, family: str, name: str) -> bool:
        """Delete the table; False when there is none."""
        table = _table(family, name)
        if (family, name) not in self.tables():
            return False
        self.run(f"add {table}\ndelete {table}\n")
        return True

    def _run(self, text: str, flags: int) -> str:
        with _lock:
            if self._context is None:
                raise NftError("this nftables context is closed")
            with netns.enter_fd(self._netns):
                self._library.nft_ctx_output_set_flags(self._context, flags)
                failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
                output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
                message: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise NftError(message.decode(errors="replace").strip() or f"nftables refused: {text[:200]}")
        return output.decode(errors="replace")
