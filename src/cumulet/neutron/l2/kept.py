"""What this host's ports were last wired by, in a file of the run directory.

It is read only for ports of another cloud (``plan.list_strangers``): the flows of a switch are made as a whole from
one document, so those of a port can be kept only by who still knows it.  Written before the switch is changed; it
goes with the run directory at the machine's boot, as the guests do.
"""

import os
from pathlib import Path

import msgspec

from cumulet.neutron.model import WireIntent


class Kept:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: WireIntent | None = None  # what is in the file, as far as we have written it

    def load(self) -> WireIntent:
        """Empty if there is no such file, or none that can be read."""
        if self._last is None:
            try:
                self._last = msgspec.json.decode(self._path.read_bytes(), type=WireIntent)
            except (FileNotFoundError, msgspec.DecodeError):
                return WireIntent()
        return self._last

    def save(self, intent: WireIntent) -> None:
        if intent is self._last or intent == self._last:
            return
        partial = self._path.with_suffix(".new")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(intent))
        partial.rename(self._path)
        self._last = intent
