"""A reverse proxy that gives the service a path of its host, as nginx does: other paths are another site's."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATH = "/our/router"


class Front(ThreadingHTTPServer):
    """`strips`: the service does not see PATH. `certificate`: it speaks https. `strays`: paths that were not ours."""

    daemon_threads = True

    def __init__(self, *, strips: bool, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.strips, self.backend, self.strays = strips, 0, list[str]()
        self.scheme = "https" if certificate else "http"
        if certificate:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = f"{self.scheme}://127.0.0.1:{self.server_port}{PATH}"


class _Handler(BaseHTTPRequestHandler):
    server: Front

    def do_GET(self) -> None:
        path = self.path
        if not (path == PATH or path.startswith((f"{PATH}/", f"{PATH}?"))):
            self.server.strays.append(path)
            self.send_error(404, "Another site")
            return
        if self.server.strips:
            path = f"/{path.removeprefix(PATH).lstrip('/')}"
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {"connection", "host"}}
        headers |= {"X-Forwarded-For": self.client_address[0], "X-Forwarded-Proto": self.server.scheme}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.backend, timeout=30)) as behind:
            behind.request(self.command, path, body, headers)
            answer = behind.getresponse()
            sent = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "transfer-encoding"}:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)

    do_POST = do_GET  # noqa: N815 - as the library calls it

    def log_message(self, *_: object) -> None:
        """Not a line per request."""


@contextmanager
def fronting(*, strips: bool, certificate: Path | None = None) -> Iterator[Front]:
    """The proxy at work. Where it leads to is set once that is known: `backend`, a port."""
    with Front(strips=strips, certificate=certificate) as front:
        thread = threading.Thread(target=front.serve_forever, daemon=True)
        thread.start()
        yield front
        front.shutdown()
        thread.join()


def self_signed(folder: Path) -> Path:
    """A file with a certificate for this host, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file
