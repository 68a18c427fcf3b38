"""glance-api is asked to end while an image is on its way in: it finishes that, and takes nothing new.

The service runs in a process of its own, as the node's parent runs it; the client is here and sends the second half
of the data only when the service has seen the signal and let go of its listening socket.
"""

import os
import signal
import socket
from pathlib import Path

from cumulet.core import run
from cumulet.core.bus import LocalBus
from cumulet.core.service import Service
from tests.glance.test_leftovers import DATA, glance_on_disk, prepare
from tests.machine import wait_for

HALF = len(DATA) // 2


def serve(directory: Path, listener: socket.socket) -> int:
    """glance-api in a child; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        run.serve("glance-api", Service(app=glance_on_disk(directory).api), LocalBus(), api_sockets=[listener])
    finally:
        os._exit(0)


def holds(pid: int, inode: int) -> bool:
    """Whether the process has this socket open."""
    names = (f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd"))
    return any(os.readlink(name) == f"socket:[{inode}]" for name in names if os.path.lexists(name))


def test_an_upload_under_way_at_sigterm_is_finished(tmp_path: Path) -> None:
    glance = prepare(tmp_path / "glance")
    image = glance.create()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inode = os.fstat(listener.fileno()).st_ino
        child = serve(tmp_path / "glance", listener)
        try:
            with socket.create_connection(listener.getsockname(), timeout=60) as client:
                head = (
                    f"PUT /v2/images/{image['id']}/file HTTP/1.1\r\nHost: cloud\r\nX-Auth-Token: alice\r\n"
                    f"Content-Type: application/octet-stream\r\nContent-Length: {len(DATA)}\r\n\r\n"
                )
                client.sendall(head.encode() + DATA[:HALF])
                wait_for(lambda: glance.show(image["id"])["status"] == "saving", 60, "the upload")
                os.kill(child, signal.SIGTERM)
                wait_for(lambda: not holds(child, inode), 60, "the end of listening")
                assert glance.show(image["id"])["status"] == "saving"
                client.sendall(DATA[HALF:])
                assert client.recv(4096).startswith(b"HTTP/1.1 204")
        finally:
            os.kill(child, signal.SIGTERM)
            _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert glance.show(image["id"])["status"] == "active"
    assert glance.download("alice", image["id"]).body == DATA
    assert len(glance.files()) == 1
