"""The APIs of a cloud on a loopback port: pipelines as in their api-paste.ini, and an application that tells all."""

from __future__ import annotations

import json
import socket
import threading
from base64 import b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

import waitress
from paste import deploy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# Wherever operators mount Nova and Cinder: at ports of their own, below one address, and below a part of one.
CONFIGURATION = """
[composite:main]
use = egg:Paste#urlmap
/v2.1 = nova
/v2 = nova
/compute/v2.1 = nova
/front/compute/v2.1 = nova
/v3 = cinder
/volume/v3 = cinder
/front/volume/v3 = cinder
/ = inside

[pipeline:nova]
pipeline = validator stillframe_nova validator cloud

[pipeline:cinder]
pipeline = validator stillframe_cinder validator cloud

[pipeline:inside]
pipeline = stillframe_nova stillframe_cinder cloud

[filter:validator]
paste.filter_factory = tests.filters.cloud:validating

[app:cloud]
paste.app_factory = tests.filters.cloud:telling

[filter:stillframe_nova]
paste.filter_factory = stillframe.filters:nova
{options}

[filter:stillframe_cinder]
paste.filter_factory = stillframe.filters:cinder
{options}
"""


def validating(_global_conf: Mapping[str, str]) -> Callable[[WSGIApplication], WSGIApplication]:
    """paste.filter_factory: break where one of both sides does not keep to WSGI."""
    return validator


def telling(_global_conf: Mapping[str, str]) -> WSGIApplication:
    """paste.app_factory: reply with the request."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        told = {name: value for name, value in environ.items() if isinstance(value, str)}
        body = json.dumps({"told": told, "body": b64encode(environ["wsgi.input"].read(length)).decode()}).encode()
        start_response("299 Cloud", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return app


def configured(folder: Path, **options: object) -> str:
    """The URI of a configuration of PasteDeploy whose filters have these options."""
    file = folder / "api-paste.ini"
    file.write_text(CONFIGURATION.format(options="\n".join(f"{name} = {value}" for name, value in options.items())))
    return f"config:{file}"


@contextmanager
def cloud(folder: Path, **options: object) -> Iterator[str]:
    """Serve the pipelines until the context is left, at the address that is returned."""
    with serving(deploy.loadapp(configured(folder, **options))) as url:
        yield url


@contextmanager
def serving(app: WSGIApplication) -> Iterator[str]:
    """Serve until the context is left, at the address that is returned."""
    server = waitress.create_server(app, host="127.0.0.1", port=0, clear_untrusted_proxy_headers=False)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        server.close()
        thread.join(1)


class Recorder:
    """A service that keeps what it is asked, and always gives the same reply."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read()
        self.requests.append({**environ, "body": body})
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", "2")])
        return [b"{}"]


@contextmanager
def answering(*replies: bytes) -> Iterator[str]:
    """A service that answers one connection after the other with these bytes, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for reply in replies:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(reply)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(5)


@contextmanager
def closed_port() -> Iterator[str]:
    """An address where nothing listens, and where nothing can begin to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
