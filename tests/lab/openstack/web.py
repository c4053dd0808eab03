"""A WSGI application of the cloud, served by uwsgi as at operators', with one process and a few threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.lab.openstack.services import HOST, Place, Service, answers

__all__ = ["Web"]


class Web(Service):
    """An API at `url`."""

    def __init__(
        self,
        place: Place,
        name: str,
        module: str,
        port: int,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.url = f"http://{HOST}:{port}"
        command = [
            *(place.program("uwsgi"), "--http-socket", f"{HOST}:{port}", "--module", f"{module}:application"),
            *(
                "--processes",
                "1",
                "--threads",
                "8",
                "--enable-threads",
                "--thunder-lock",
                "--need-app",
                "--die-on-term",
            ),
            *("--buffer-size", "65535", "--http-chunked-input", "--log-x-forwarded-for"),
            # It serves one request a connection, and clients that keep connections have to be told.
            *("--add-header", "Connection: close"),
            *(("--pyargv", " ".join(arguments)) if arguments else ()),
        ]
        super().__init__(place, name, command, answers(f"{self.url}/"), environment)
