"""Serving the API with waitress until a signal asks for the end."""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from waitress import server, wasyncore
from waitress.channel import HTTPChannel

from stillframe.cli.exit_codes import CommandFailed, ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger(__name__)

_LOOK_EVERY: Final = 0.25
_LAST_REPLIES_SECONDS: Final = 10.0
_BUFFERED: Final = 16
# Clients keep idle connections open; at waitress's own limit of 100 the next one would wait for one of them to go.
_CONNECTIONS: Final = 800


@contextmanager
def end_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second signal has its usual effect."""
    ending = threading.Event()
    usual: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _frame: Any) -> None:
        signal.signal(number, usual[number])
        ending.set()

    for number in usual:
        signal.signal(number, note)
    try:
        yield ending
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


class HttpServer:
    """Listens from its making on, and answers while `run` runs; an address it cannot have is a `CommandFailed`."""

    def __init__(self, application: Any, host: str, port: int, threads: int, most_bytes: int) -> None:
        self._channels: dict[int, Any] = {}
        where = f"[{host}]" if ":" in host and not host.startswith("[") else host
        try:
            self._server = server.create_server(
                application,
                map=self._channels,
                listen=f"{where}:{port}",
                threads=threads,
                connection_limit=_CONNECTIONS,
                ident="stillframe",
                # The application's own limit is lower and answers in the API's words; this one bounds what is buffered.
                max_request_body_size=_BUFFERED * most_bytes,
                clear_untrusted_proxy_headers=False,  # oslo.middleware decides about those
            )
        except (OSError, ValueError) as error:
            raise CommandFailed(ExitCode.FAILED, f"cannot listen on {where}:{port}: {error}") from None
        bound = next(one for one in self._channels.values() if isinstance(one, server.BaseWSGIServer))
        self.address = f"http://{where}:{bound.effective_port}"

    def run(self, ending: threading.Event) -> None:
        """Answer requests until `ending` is set, then finish those that came before."""
        try:
            while not ending.is_set():
                self._turn()
        finally:
            self._finish()

    def _turn(self) -> None:
        # With poll: a file descriptor that is too large for select would end the service.
        wasyncore.loop(timeout=_LOOK_EVERY, use_poll=True, map=self._channels, count=1)

    def _finish(self) -> None:
        for one in list(self._channels.values()):
            if isinstance(one, server.BaseWSGIServer):
                wasyncore.dispatcher.close(one)
        until = time.monotonic() + _LAST_REPLIES_SECONDS
        while self._replies_left() and time.monotonic() < until:
            self._turn()
        dispatcher = self._server.task_dispatcher
        dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._channels)

    def _replies_left(self) -> bool:
        channels = [one for one in self._channels.values() if isinstance(one, HTTPChannel)]
        return any(one.requests or one.total_outbufs_len for one in channels)
