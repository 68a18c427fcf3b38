"""/servers/{id}/diagnostics: what the host counts, in both forms; and a host that is silent, or lies."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from cumulet.core.schema import encode
from cumulet.core.secrets import host_token
from cumulet.nova.model import Diagnostics, DiskCounters, NicCounters
from tests.nova.api_cloud import SECRETS, Cloud

DISK = DiskCounters("vda", 1, 2, 3, 4)


class Host(BaseHTTPRequestHandler):
    status = 200
    body = b""

    def do_GET(self) -> None:
        good = self.headers["X-Cumulet-Host-Token"] == host_token(
            SECRETS.host_secret, self.headers["X-Cumulet-Host"]
        )
        self.send_response(self.status if good and self.path.endswith("/diagnostics") else 401)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    server = HTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    cloud = Cloud(console_port=server.server_port)
    cloud.add_host("h1", address="127.0.0.1")
    Host.status, Host.body = 200, encode(Diagnostics((50,), 512, 100, (), (DISK,)))
    yield cloud
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_a_server_uses(cloud: Cloud) -> None:
    server = cloud.running(networks=[{"uuid": cloud.network()}])
    (port,) = cloud.get("alice", f"/servers/{server}/os-interface")["interfaceAttachments"]
    nic = NicCounters("tap1", port["port_id"], 1, 2, 3, 4, 5, 6, 7, 8)
    Host.body = encode(Diagnostics((50, 60), 512, 100, (nic,), (DISK,)))
    found = cloud.get("admin", f"/servers/{server}/diagnostics", "2.48")
    assert found.pop("uptime") >= 0
    assert found == {
        "state": "running",
        "driver": "libvirt",
        "hypervisor": None,
        "hypervisor_os": "linux",
        "config_drive": False,
        "num_cpus": 2,
        "num_nics": 1,
        "num_disks": 1,
        "memory_details": {"maximum": 512, "used": 100},
        "cpu_details": [{"id": 0, "time": 50, "utilisation": None}, {"id": 1, "time": 60, "utilisation": None}],
        "nic_details": [
            {
                "mac_address": port["mac_addr"],
                "rx_octets": 1, "rx_packets": 2, "rx_errors": 3, "rx_drop": 4, "rx_rate": None,
                "tx_octets": 5, "tx_packets": 6, "tx_errors": 7, "tx_drop": 8, "tx_rate": None,
            }
        ],
        "disk_details": [
            {"read_bytes": 1, "read_requests": 2, "write_bytes": 3, "write_requests": 4, "errors_count": None}
        ],
    }  # fmt: skip
    assert cloud.get("admin", f"/servers/{server}/diagnostics", "2.47") == {
        "cpu0_time": 50, "cpu1_time": 60, "memory": 524288, "memory-rss": 102400,
        "tap1_rx": 1, "tap1_rx_packets": 2, "tap1_rx_errors": 3, "tap1_rx_drop": 4,
        "tap1_tx": 5, "tap1_tx_packets": 6, "tap1_tx_errors": 7, "tap1_tx_drop": 8,
        "vda_read": 1, "vda_read_req": 2, "vda_write": 3, "vda_write_req": 4, "vda_errors": -1,
    }  # fmt: skip


def test_only_of_what_runs(cloud: Cloud) -> None:
    server = cloud.create()
    assert cloud.refused("admin", "GET", f"/servers/{server}/diagnostics")[0] == 409
    cloud.place()
    cloud.report(server, "on")
    assert cloud.call("admin", "GET", f"/servers/{server}/diagnostics")[0] == 200
    Host.status = 404
    assert cloud.refused("admin", "GET", f"/servers/{server}/diagnostics")[0] == 409, "it went off meanwhile"
    for who in ("alice", "bob"):
        assert cloud.refused(who, "GET", f"/servers/{server}/diagnostics")[0] == 403
    assert cloud.refused("admin", "GET", "/servers/nope/diagnostics")[0] == 404


@pytest.mark.parametrize(
    ("status", "body"), [(503, b"libvirt"), (200, b"{}"), (200, b"junk"), (200, b'{"cpu_nanoseconds": [-1]}')]
)
def test_a_host_that_cannot_say_or_lies(cloud: Cloud, status: int, body: bytes) -> None:
    server = cloud.running()
    Host.status, Host.body = status, body
    assert cloud.refused("admin", "GET", f"/servers/{server}/diagnostics")[0] == 503
