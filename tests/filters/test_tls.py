"""A service behind TLS."""

from __future__ import annotations

import ssl
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.filters.cloud import cloud, telling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that it has signed itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stillframe")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    file.write_bytes(plain + signed.public_bytes(pem))
    return file


class Quiet(WSGIRequestHandler):
    """No access log."""

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def serving_tls(certificate: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with make_server("127.0.0.1", 0, telling({}), handler_class=Quiet) as server:
        # The handshake belongs to a connection; at the listening socket it would break the loop where it fails.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(5)


def test_the_service_is_believed_with_a_certificate_of_the_cafile_and_not_without(
    tmp_path: Path, certificate: Path
) -> None:
    with serving_tls(certificate) as endpoint:
        statuses = []
        for options in ({"cafile": certificate}, {}):
            with cloud(tmp_path, endpoint=endpoint, **options) as front:
                statuses.append(requests.get(f"{front}/v3/p/instance-snapshots", timeout=60).status_code)
    assert statuses == [299, 503]
