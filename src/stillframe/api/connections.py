"""Connections that take the service from nobody: bounded in number and in time, and the greedy ones go first.

waitress reads requests and sends replies in one thread, without blocking, and has threads only for complete requests.
What it lacks is added here: an end to a request that never becomes complete and to a reply that is never taken, room
for the next client, no thread that waits for a reader, turns among clients, and threads for
each lane of requests.
"""

from __future__ import annotations

import heapq
import ipaddress
import logging
import socket
import sys
import threading
import time
from collections import Counter, OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from oslo_context.context import generate_request_id
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher

from stillframe.api.errors import server_refusal
from stillframe.api.lanes import Choose, Lane, subject
from stillframe.logs.context import about

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = logging.getLogger(__name__)

_ACCEPTED_AT_A_TIME: Final = 64
_TOLD_EVERY: Final = 60.0
_PEER_BITS: Final = 64
_TLS_HANDSHAKE: Final = b"\x16"
_READ_AT_A_TIME: Final = 64 << 10
_MOST_READ_OFF: Final = 4 << 20
# For what takes little time, and for checks of passwords, of which few run at a time; the rest is as the settings say.
_THREADS: Final = {Lane.HEALTH: 2, Lane.STORE: 4, Lane.CHECKING: 8}
# Requests about one instance or volume have a quarter of the main lane's threads at most.
_SHARE_OF_ONE: Final = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one client may take: `connections` of all clients together, the rest in seconds.

    `idle`: without a request. `receiving`: from a request's first byte to its last. `sending`: for one reply.
    """

    connections: int = 800
    idle: float = 75.0
    receiving: float = 20.0
    sending: float = 60.0


class _Phase(Enum):
    """What a connection is doing."""

    IDLE = "idle"
    RECEIVING = "receiving"
    QUEUED = "queued"
    WORKING = "working"
    SENDING = "sending"


class Refusal(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """The reply to a request that waitress does not hand over, in the form of all replies."""

    def execute(self) -> None:
        """See `ErrorTask`."""
        status, reason = self.request.error.code, self.request.error.reason
        request_id = generate_request_id()
        with about(request_id):
            LOG.info("refused with %d: %s", status, reason)
        body = server_refusal(status)
        self.status = f"{status} {reason}"
        self.response_headers.extend([("Content-Type", "application/json"), ("X-Openstack-Request-Id", request_id)])
        self.set_close_on_finish()
        self.content_length = len(body)
        self.channel.refused = True
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """One connection; of several requests that came at once the next waits until the reply before it is taken."""

    error_task_class = Refusal
    held = False
    refused = False
    working = False
    served = 0
    subject: str | None = None
    ended: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, server: Listener, connection: Any, address: Any, adj: Any, map: Any) -> None:  # noqa: A002
        self.peer = _peer(address)
        self.since = time.monotonic()
        self._seen: tuple[_Phase, object] = (_Phase.IDLE, None)
        super().__init__(server, connection, address, adj, map=map)

    def received(self, data: bytes) -> bool:
        """See `HTTPChannel`; who begins with a TLS handshake would wait for an answer that never comes."""
        if self.request is None and data[:1] == _TLS_HANDSHAKE:
            self.handle_close()
            return False
        return bool(super().received(data))

    def writable(self) -> bool:
        """See `HTTPChannel`."""
        return bool(self.held or super().writable())

    def handle_write(self) -> None:
        """See `HTTPChannel`."""
        super().handle_write()
        if self.held and self.connected and not self.total_outbufs_len:
            self.held = False
            self.server.add_task(self)

    def handle_close(self) -> None:
        """See `HTTPChannel`."""
        if self.refused and self.connected:
            self._read_off()
        super().handle_close()

    def _read_off(self) -> None:
        """Take what has arrived of a refused request: left unread, it would cut off the reply on its way."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            for _ in range(_MOST_READ_OFF // _READ_AT_A_TIME):
                if not self.socket.recv(_READ_AT_A_TIME):
                    break

    def service(self) -> None:
        """See `HTTPChannel`."""
        self.served += 1
        self.working = True
        # Its next request may have its turn before this one has come to its end here.
        ended = self.ended
        try:
            super().service()
        finally:
            self.working = False
            ended()

    def phase(self, now: float) -> _Phase:
        """What it is doing, and with `since` from when on, as far as somebody looked."""
        found: tuple[_Phase, object]
        if self.total_outbufs_len:
            found = (_Phase.SENDING, self.served)
        elif self.working:
            found = (_Phase.WORKING, self.served)
        elif self.requests:
            found = (_Phase.QUEUED, self.served)
        elif self.request is not None:
            found = (_Phase.RECEIVING, self.request)
        else:
            found = (_Phase.IDLE, self.served)
        if found != self._seen:
            self._seen, self.since = found, now
        return found[0]


class Turns:
    """A queue of channels, as `ThreadedTaskDispatcher` uses one: those whose clients wait take turns, client by client.

    So nobody waits for all the requests of somebody else, however many these are. Nor for an instance that hangs: of
    the requests about one at most `most` are handled at a time, and the others are not there for a thread that looks.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self.most = sys.maxsize
        self._lock = lock
        self._of_peer: OrderedDict[str, deque[Channel]] = OrderedDict()
        self._handled: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(self._may(channel) for waiting in self._of_peer.values() for channel in waiting)

    def append(self, channel: Channel) -> None:
        request = channel.requests[0]
        channel.subject = None if request.error else subject(request.path)
        self._of_peer.setdefault(channel.peer, deque()).append(channel)

    def popleft(self) -> Channel:
        channel = next(one for waiting in self._of_peer.values() for one in waiting if self._may(one))
        waiting = self._of_peer.pop(channel.peer)
        waiting.remove(channel)
        if waiting:
            self._of_peer[channel.peer] = waiting
        if channel.subject is not None:
            self._handled[channel.subject] += 1
        channel.ended = partial(self._forget, channel.subject)
        return channel

    def _may(self, channel: Channel) -> bool:
        return channel.subject is None or self._handled[channel.subject] < self.most

    def _forget(self, about: str | None) -> None:
        """The thread that has handled it looks for its next one by itself, and finds what this has kept back."""
        if about is None:
            return
        with self._lock:
            self._handled[about] -= 1
            if not self._handled[about]:
                del self._handled[about]


class Lanes:
    """The threads that handle requests: each lane has some of its own, and waits for nothing that another waits for."""

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self._of = {lane: ThreadedTaskDispatcher() for lane in Lane}
        for dispatcher in self._of.values():
            dispatcher.queue = Turns(dispatcher.lock)

    @property
    def main(self) -> ThreadedTaskDispatcher:
        return self._of[Lane.MAIN]

    def start(self, threads: int) -> None:
        """Begin to handle requests, `threads` of the main lane's at a time, and a few of them about one instance."""
        self.main.queue.most = max(1, threads // _SHARE_OF_ONE)
        for lane, dispatcher in self._of.items():
            dispatcher.set_thread_count(_THREADS.get(lane, threads))

    def stop(self) -> None:
        # What is kept back is cancelled as well.
        self.main.queue.most = sys.maxsize
        for dispatcher in self._of.values():
            dispatcher.shutdown(timeout=1)

    def of(self, request: Any) -> ThreadedTaskDispatcher:
        """Where a request (of waitress) is handled; one that could not be read takes no time."""
        if request.error:
            return self._of[Lane.HEALTH]
        return self._of[self._choose(request.command, request.path, request.headers.get("AUTHORIZATION"))]


class Listener(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """Accepts connections on one address."""

    channel_class = Channel

    def __init__(self, *args: Any, bounds: Bounds, lanes: Lanes, **options: Any) -> None:
        self._bounds = bounds
        self._lanes = lanes
        self._closed_early = 0
        self._told = -_TOLD_EVERY
        super().__init__(*args, **options)

    def handle_accept(self) -> None:
        """Accept what waits, and make room for it where there is none."""
        for _ in range(_ACCEPTED_AT_A_TIME):
            try:
                found = self.accept()
                if found is None:
                    break
                connection, address = found
                self.set_socket_options(connection)
            except OSError as error:
                # Out of descriptors, or the client is gone already.
                LOG.warning("a connection cannot be accepted: %s", error.strerror)
                self._make_room(1)
                break
            self.channel_class(self, connection, address, self.adj, map=self._map)
        self._make_room(len(self._channels()) - self._bounds.connections)

    def add_task(self, channel: Channel) -> None:
        """Have a channel's next request handled, once the client has taken the reply before it."""
        if channel.total_outbufs_len:
            # Else a client that reads nothing would have a thread wait for it.
            channel.held = True
            return
        self._lanes.of(channel.requests[0]).add_task(channel)

    def maintenance(self, _now: float) -> None:
        """Close the connections that have been at something for too long."""
        now = time.monotonic()
        longest = {
            _Phase.IDLE: self._bounds.idle,
            _Phase.RECEIVING: self._bounds.receiving,
            _Phase.SENDING: self._bounds.sending,
        }
        for channel in self._channels():
            phase = channel.phase(now)
            if phase in longest and now - channel.since > longest[phase]:
                channel.handle_close()

    def _channels(self) -> list[Channel]:
        return [one for one in self._map.values() if isinstance(one, Channel)]

    def _make_room(self, needed: int) -> None:
        """Close connections of whoever has the most, the longest at it first; but none whose request is handled.

        One that waits for its turn is as good as one that was never made: nothing has been done for it.
        """
        if needed <= 0:
            return
        now, channels = time.monotonic(), self._channels()
        waiting = [one for one in channels if one.phase(now) is not _Phase.WORKING]
        # If all are being handled, whoever comes last is turned away.
        chosen = waiting or channels[-needed:]
        of_peer = Counter(one.peer for one in channels)
        for channel in heapq.nlargest(needed, chosen, key=lambda one: (of_peer[one.peer], now - one.since)):
            channel.handle_close()
            self._closed_early += 1
        if now - self._told > _TOLD_EVERY:
            self._told = now
            peer, count = of_peer.most_common(1)[0]
            LOG.warning(
                "all %d connections are taken, most (%d) by %s; %d were closed early so far",
                *(len(channels), count, peer, self._closed_early),
            )


def _peer(address: tuple[Any, ...]) -> str:
    """Who a connection comes from; whoever has one address of IPv6 has the whole network of it."""
    host = str(address[0]).partition("%")[0]
    found = ipaddress.ip_address(host)
    if found.version == 4:  # noqa: PLR2004  # of the protocol
        return host
    return str(ipaddress.ip_network((host, _PEER_BITS), strict=False))
