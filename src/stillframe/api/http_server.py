"""Serving the API with waitress until a signal asks for the end."""

from __future__ import annotations

import logging
import resource
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from waitress import server, wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel

from stillframe.api.connections import Bounds, Lanes, Listener
from stillframe.api.lanes import Lane

if TYPE_CHECKING:
    pass

LOG = logging.getLogger(__name__)

_LOOK_EVERY: Final = 0.25
_LAST_REPLIES_SECONDS: Final = 10.0
_BUFFERED: Final = 16
_LONGEST_HEAD: Final = 32 << 10
# What is longer is kept in a temporary file, one for each connection.
_IN_MEMORY: Final = 64 << 10
_REPLY_IN_MEMORY: Final = 256 << 10
_DESCRIPTORS: Final = 65536


class HttpServer:
    """Listens from its making on, and answers while `run` runs; an address it cannot have is an `OSError`."""

    def __init__(
        self, application: Any, host: str, port: int, threads: int, most_bytes: int, bounds: Bounds | None = None
    ) -> None:
        self._channels: dict[int, Any] = {}
        where = f"[{host}]" if ":" in host and not host.startswith("[") else host
        # It tells of each request that finds all threads at work.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        try:
            adjustments = Adjustments(
                listen=f"{where}:{port}",
                threads=threads,
                ident="stillframe",
                connection_limit=_DESCRIPTORS,  # that is for `Bounds` to say
                cleanup_interval=1,
                # The application's own limit is lower and answers in the API's words; this one bounds what is buffered.
                max_request_body_size=_BUFFERED * most_bytes,
                max_request_header_size=_LONGEST_HEAD,
                inbuf_overflow=_IN_MEMORY,
                outbuf_overflow=_REPLY_IN_MEMORY,
                log_socket_errors=False,  # a client that goes away is no error of ours
                clear_untrusted_proxy_headers=False,  # oslo.middleware decides about those
            )
            self._lanes = Lanes(getattr(application, "lane", _one_lane))
            listeners = [
                Listener(
                    *(application, self._channels),
                    dispatcher=self._lanes.main,
                    lanes=self._lanes,
                    bounds=_within_the_limit(bounds or Bounds()),
                    adj=adjustments,
                    sockinfo=one,
                )
                for one in adjustments.listen
            ]
        except (OSError, ValueError) as error:
            raise OSError(f"cannot listen on {where}:{port}: {error}") from None
        self._lanes.start(threads)
        self.address = f"http://{where}:{listeners[0].effective_port}"

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
        self._lanes.stop()
        wasyncore.close_all(self._channels)

    def _replies_left(self) -> bool:
        channels = [one for one in self._channels.values() if isinstance(one, HTTPChannel)]
        return any(one.requests or one.total_outbufs_len for one in channels)


def _one_lane(_method: str, _path: str, _authorization: str | None) -> Lane:
    return Lane.MAIN


def _within_the_limit(bounds: Bounds) -> Bounds:
    """The bounds with no more connections than half of the files that this process may open, which is raised first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    most = bounds.connections if soft == resource.RLIM_INFINITY else min(bounds.connections, soft // 2)
    return replace(bounds, connections=most)
