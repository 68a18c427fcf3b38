"""A web server that counts as somewhere in the internet, for tests of what the cloud fetches from there.

The cloud fetches from public addresses only and never from its own, so the server has such an address, in a network
namespace beside the cloud's.  It is for machines that are cut off from the real internet (``tests/isolated``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from cumulet.host import netns
from cumulet.host.netlink import Netlink

SPACE, DEVICE = "elsewhere", "elsewhere0"
HERE, THERE = "1.2.3.1", "1.2.3.4"


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Files of ``directory`` at the URL that is yielded."""
    netns.create(SPACE)
    with Netlink() as link:
        link.ensure_veth(DEVICE, "eth0", SPACE)
        link.ensure_addresses(DEVICE, {f"{HERE}/24"})
        link.set_up(DEVICE)
    with netns.enter(SPACE), Netlink() as link:
        link.ensure_addresses("eth0", {f"{THERE}/24"})
        link.set_up("eth0")
        server = ThreadingHTTPServer((THERE, 80), partial(_Silent, directory=str(directory)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{THERE}"
    finally:
        server.shutdown()
        server.server_close()
        with Netlink() as link:
            link.delete_link(DEVICE)
        netns.delete(SPACE)
