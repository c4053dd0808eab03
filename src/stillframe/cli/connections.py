"""Connections that take the service from nobody: bounded in number and in time, and the greedy ones go first.

waitress reads requests and sends replies in one thread, without blocking, and has threads only for complete requests.
What it lacks is added here: an end to a request that never becomes complete and to a reply that is never taken, room
for the next client, no thread that waits for a reader, turns among clients, and lanes of their
own for whoever asks how the service is and for passwords that have to be checked.
"""

from __future__ import annotations

import heapq
import ipaddress
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

LOG = logging.getLogger(__name__)

#: What has a lane of its own: it says whether the service is well when everything else waits for something.
HEALTH: Final = "/healthcheck"

_ACCEPTED_AT_A_TIME: Final = 64
_TOLD_EVERY: Final = 60.0
_PEER_BITS: Final = 64
_FEW_THREADS: Final = 2


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
    WORKING = "working"
    SENDING = "sending"


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """One connection; of several requests that came at once the next waits until the reply before it is taken."""

    held = False
    served = 0

    def __init__(self, server: Listener, connection: Any, address: Any, adj: Any, map: Any) -> None:  # noqa: A002
        self.peer = _peer(address)
        self.since = time.monotonic()
        self._seen: tuple[_Phase, object] = (_Phase.IDLE, None)
        super().__init__(server, connection, address, adj, map=map)

    def writable(self) -> bool:
        """See `HTTPChannel`."""
        return bool(self.held or super().writable())

    def handle_write(self) -> None:
        """See `HTTPChannel`."""
        super().handle_write()
        if self.held and self.connected and not self.total_outbufs_len:
            self.held = False
            self.server.add_task(self)

    def service(self) -> None:
        """See `HTTPChannel`."""
        self.served += 1
        super().service()

    def phase(self, now: float) -> _Phase:
        """What it is doing, and with `since` from when on, as far as somebody looked."""
        found: tuple[_Phase, object]
        if self.total_outbufs_len:
            found = (_Phase.SENDING, self.served)
        elif self.requests:
            found = (_Phase.WORKING, self.served)
        elif self.request is not None:
            found = (_Phase.RECEIVING, self.request)
        else:
            found = (_Phase.IDLE, self.served)
        if found != self._seen:
            self._seen, self.since = found, now
        return found[0]


class Turns:
    """A queue of channels, as `ThreadedTaskDispatcher` uses one: those whose clients wait take turns, client by client.

    So nobody waits for all the requests of somebody else, however many these are.
    """

    def __init__(self) -> None:
        self._of_peer: OrderedDict[str, deque[Channel]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._of_peer.values()))

    def append(self, channel: Channel) -> None:
        self._of_peer.setdefault(channel.peer, deque()).append(channel)

    def popleft(self) -> Channel:
        peer, waiting = self._of_peer.popitem(last=False)
        channel = waiting.popleft()
        if waiting:
            self._of_peer[peer] = waiting
        return channel


class Lanes:
    """The threads that handle requests: `main` for most of them, and a few that no request of another kind can take."""

    def __init__(self, costly: Callable[[str | None], bool]) -> None:
        self._costly = costly
        self.main, self._health, self._checking = (self._dispatcher() for _ in range(3))

    @property
    def all(self) -> Sequence[ThreadedTaskDispatcher]:
        return self.main, self._health, self._checking

    def start(self, threads: int) -> None:
        """Begin to handle requests, `threads` of the main kind at a time."""
        for dispatcher, count in ((self.main, threads), (self._health, _FEW_THREADS), (self._checking, _FEW_THREADS)):
            dispatcher.set_thread_count(count)

    def of(self, request: Any) -> ThreadedTaskDispatcher:
        """Where a request (of waitress) is handled."""
        # One that could not be read has no path.
        if getattr(request, "path", None) == HEALTH:
            return self._health
        return self._checking if self._costly(request.headers.get("AUTHORIZATION")) else self.main

    @staticmethod
    def _dispatcher() -> ThreadedTaskDispatcher:
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.queue = Turns()
        return dispatcher


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
        """Close connections of whoever has the most, the longest at it first; but none whose request is handled."""
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
