"""How a service begins and ends."""

import os
import signal
from collections.abc import Callable

from cumulet.core import run
from cumulet.core.bus import LocalBus
from cumulet.core.service import Service


def test_a_service_told_to_end_while_it_begins_ends_in_order() -> None:
    reader, writer = os.pipe()

    def start(wake: Callable[[str], None]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def stop() -> None:
        os.write(writer, b"stopped")

    child = os.fork()
    if not child:
        try:
            run.serve("a-service", Service(start=start, stop=stop), LocalBus())
        finally:
            os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as told:
        assert told.read() == b"stopped"
    assert os.waitstatus_to_exitcode(status) == 0
