"""Requests made for a user: what may be asked for, and what happens to those that lead inside."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cumulet.core.outbound import Ended, Outbound, Refused, check_url, connect, is_public
from tests.core.web import PUBLIC, Web, ok, redirect


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    threading.Thread(target=web.serve, daemon=True).start()
    yield web
    web.listener.shutdown(socket.SHUT_RDWR)
    web.listener.close()


def test_what_is_public_is_fetched(web: Web) -> None:
    web.answers["/a?b=c"] = ok(b"x" * 300_000)
    assert web.get("http://images.example/a?b=c") == b"x" * 300_000
    assert "Host: images.example\r\n" in web.asked[0]
    assert "Accept-Encoding: identity" in web.asked[0]
    assert web.dialled == [f"{PUBLIC}:80"]
    web.answers["/"] = ok(b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    assert web.get("http://images.example") == b"hello"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://a.example/", "gopher://a.example/", "//a.example/", "a.example", "", "http://",
        "http:///x", "http://u:p@a.example/", "http://u@a.example/", "http://a.example@127.0.0.1/", "http://a.example:22/",
        "http://a.example:0/", "http://a.example:99999/", "http://a.example:x/", "http://127.0.0.1/", "http://127.1/",
        "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://017700000001/",
        "http://127.0.0.1./", "http://0/", "http://0.0.0.0/", "http://10.0.0.1/", "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data", "http://100.64.0.1/", "http://172.16.0.1/", "http://224.0.0.1/",
        "http://255.255.255.255/", "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/", "http://[::127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[64:ff9b:1::1]/",
        "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fc00::1]/", "http://[fd00:ec2::254]/",
        "http://[ff02::1]/", "http://[2002:7f00:1::]/", "http://[2001:0:1::]/", "http://[2001:db8::1]/",
        "http://[v1.x]/", "http://1.2.3/", "http://1.2.3.4.5/", "http://0x/", "http://a.0x7f/", "http://08.8.8.8/",
        "http://a b.example/", "http://a.example/\r\nX: y", "http://a.example\\@b.example/", "http://a\tb.example/",
        "http://\u2460\u2461.example/", "http://a\uff0eexample/", "http://-a.example/", "http://a..example/",
        "http://.example/", "http://a_b/", "http://a%2eexample/", "http://a.example/" + "x" * 3000, "HTTP\0://a/",
    ],
)  # fmt: skip
def test_urls_that_are_refused_by_their_text(web: Web, url: str) -> None:
    with pytest.raises(Refused):
        check_url(url)
    with pytest.raises(Refused):
        web.get(url)
    assert web.dialled == []


@pytest.mark.parametrize(
    "url",
    ["http://a.example", "https://a.example:443/x?y=z#f", "HTTPS://A.EXAMPLE/", "http://93.184.216.34/",
     "http://[2606:2800:220:1::1]:80/", "http://xn--bcher-kva.example./", "http://3com.example/", "http://a.example/%20"],
)  # fmt: skip
def test_urls_that_may_be_asked_for(url: str) -> None:
    assert check_url(url).hostname


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["10.0.0.1", PUBLIC], ["::1"], ["::ffff:10.0.0.1"], ["fe80::1%eth0"], []],
)
def test_names_that_lead_inside(web: Web, addresses: list[str]) -> None:
    web.names["rebind.example"] = [addresses]
    with pytest.raises(Refused, match="not public"):
        web.get("http://rebind.example/")
    assert web.dialled == []


def test_a_name_that_changes_its_mind(web: Web) -> None:
    """It is asked once; the connection goes to the address that was looked at."""
    web.names["rebind.example"] = [[PUBLIC], ["127.0.0.1"]]
    web.answers["/"] = ok(b"public")
    assert web.get("http://rebind.example/") == b"public"
    assert web.dialled == [f"{PUBLIC}:80"]
    with pytest.raises(Refused):
        web.get("http://rebind.example/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "to",
    ["http://127.0.0.1/", "http://169.254.169.254/", "file:///etc/passwd", "http://inside.example/", "//[::1]/",
     "http://2130706433/", "http://a.example:8774/", "http://u@a.example/", "gopher://a.example/"],
)  # fmt: skip
def test_every_redirect_is_checked(web: Web, status: int, to: str) -> None:
    web.names["inside.example"] = [["10.0.0.1"]]
    web.answers["/start"] = redirect(to, status)
    with pytest.raises(Refused):
        web.get("http://a.example/start")
    assert web.dialled == [f"{PUBLIC}:80"]


def test_redirects_are_followed_and_counted(web: Web) -> None:
    web.answers |= {"/1": redirect("/2"), "/2": redirect("http://b.example/3", 307), "/3": ok(b"there")}
    assert web.get("http://a.example/1") == b"there"
    web.answers["/round"] = redirect("/round")
    web.asked.clear()
    with pytest.raises(Refused, match="redirects"):
        web.get("http://a.example/round")
    assert len(web.asked) == 6
    web.answers["/nowhere"] = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(Refused):
        web.get("http://a.example/nowhere")


def test_bounds_of_size(web: Web) -> None:
    web.answers["/known"] = ok(b"x" * 2000)
    with pytest.raises(Refused, match="more than 1999 bytes"):
        web.get("http://a.example/known", 1999)
    assert len(web.get("http://a.example/known", 2000)) == 2000
    web.answers["/unknown"] = ok(b"x" * 3_000_000, "Connection: close")
    with pytest.raises(Refused, match="more than 2000 bytes"):
        web.get("http://a.example/unknown", 2000)


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"\0\0\0", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b"SSH-2.0-x\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 206 Partial\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000, b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)  # fmt: skip
def test_broken_answers(web: Web, answer: bytes) -> None:
    web.answers["/"] = answer
    with pytest.raises(Refused):
        web.get("http://a.example/")


def drip(before: bytes) -> Callable[[socket.socket], None]:
    def answer(peer: socket.socket) -> None:
        peer.sendall(before)
        while True:
            peer.sendall(b"x")
            time.sleep(0.01)

    return answer


@pytest.mark.parametrize(
    "before",
    [
        b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0000",
    ],
)  # fmt: skip
def test_a_drip_is_cut(web: Web, before: bytes) -> None:
    """Whatever part of its answer a server spins out: the headers, the body, the size of a chunk."""
    web.answers["/"] = drip(before)
    started = time.monotonic()
    with pytest.raises(Refused):
        web.get("http://a.example/", answer_seconds=0.3, slowest=100_000)
    assert time.monotonic() - started < 5


def test_silence_is_cut(web: Web) -> None:
    web.answers["/"] = lambda peer: (peer.recv(1) and None) or None
    with pytest.raises(Refused):
        web.get("http://a.example/", answer_seconds=0.3)


def test_a_long_transfer_is_cut_though_it_is_quick(web: Web) -> None:
    web.answers["/"] = drip(ok(b"", "Connection: close"))
    with pytest.raises(Refused, match="too long"):
        web.get("http://a.example/", longest_seconds=0.5, slowest=0)


def test_the_end_of_the_service_ends_a_transfer(web: Web) -> None:
    web.answers["/"] = drip(ok(b"", "Connection: close"))
    outbound = web.outbound()
    with pytest.raises(Ended), outbound.get("http://a.example/", 1 << 20) as download:
        for _ in download.pieces():
            outbound.stopping.set()


def certificate_of(name: str, directory: Path) -> Path:
    """A certificate that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / "certificate.pem"
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
    return file


def test_the_server_s_certificate_counts(tmp_path: Path) -> None:
    """By the name in the URL, though the connection goes to an address."""
    file = certificate_of("a.example", tmp_path)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(file)

    def answer(peer: socket.socket) -> None:
        with suppress(OSError), served.wrap_socket(peer, server_side=True) as secure:
            secure.recv(65536)
            secure.sendall(ok(b"secret"))

    def dial(address: str, port: int) -> socket.socket:
        assert (address, port) == (PUBLIC, 443)
        here, there = socket.socketpair()
        threading.Thread(target=answer, args=(there,), daemon=True).start()
        return here

    def get(url: str, trusted: ssl.SSLContext | None) -> bytes:
        with Outbound(lambda host, port: [PUBLIC], dial, tls=trusted).get(url, 100) as download:
            return b"".join(download.pieces())

    trusting = ssl.create_default_context(cafile=file)
    assert get("https://a.example/", trusting) == b"secret"
    for url, trusted in (("https://b.example/", trusting), ("https://a.example/", None)):
        with pytest.raises(Refused, match="SSLCertVerificationError"):
            get(url, trusted)


def test_the_connection_itself_is_checked(web: Web) -> None:
    """Even if all before it had been fooled."""
    with pytest.raises(Refused, match="not public"):
        connect("127.0.0.1", web.listener.getsockname()[1])


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)
