"""Holding a server still by Nova's `pause`, and never leaving it so.

Nova's own record of a server's actions says who paused it last. So a pause of ours is found again after any crash,
without anything being kept here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any, Final

from stillframe.domain.errors import BackendError, Conflict, GuestHeld, NotFound
from stillframe.drivers.call import Call
from stillframe.drivers.openstack import documents
from stillframe.drivers.openstack.cloud import Api, Cloud
from stillframe.drivers.openstack.hosts import Diagnosis, Hosts
from stillframe.drivers.openstack.strangers import RESOLUTION, Strangers
from stillframe.drivers.openstack.waiting import Waiting
from stillframe.drivers.openstack.watchdog import TURNS
from stillframe.drivers.outcomes import Outcome
from stillframe.drivers.watchdog_client import WatchdogClient

LOG = logging.getLogger(__name__)

_PROGRAM: Final = Path(__file__).with_name("watchdog.py")
# It has to import a library first.
_ANSWER_SECONDS: Final = 30.0
_TIMEOUT: Final = 120.0
# Beyond the time that a server may be paused, for whoever lets it run again then.
_RESCUE_SECONDS: Final = 600.0
# What nova-compute has done of an action stands in its events.
_PAUSE_EVENT: Final = "compute_pause_instance"
_PAUSED: Final = "PAUSED"
# Nova's number for a guest that its hypervisor holds still, whatever the server's status.
_HELD: Final = "3"


@dataclass
class _Meant:
    """The pause that is to end, by its request; None for any of ours."""

    pause: str | None


class Pausing:
    """Pauses servers; `seconds` is the longest that one stays paused, whatever happens.

    `timeout` in seconds bounds the wait for a server to be seen running; `watchdog` is who lets a server run again.
    """

    def __init__(
        self,
        cloud: Cloud,
        waiting: Waiting,
        *,
        seconds: float,
        timeout: float = _TIMEOUT,
        watchdog: WatchdogClient | None = None,
        resolution: float = RESOLUTION,
    ) -> None:
        self._cloud = cloud
        self._waiting = waiting
        self._seconds = seconds
        self._timeout = timeout
        self._hosts = Hosts(cloud)
        self._strangers = Strangers(resolution)
        # Isolated: it has to work whatever happened to our environment.
        self._watchdog = watchdog or WatchdogClient(_PROGRAM, "-I", answer_seconds=_ANSWER_SECONDS)

    @property
    def _api(self) -> Api:
        return self._cloud.service("compute")

    @contextmanager
    def paused(self, call: Call, server_id: str) -> Iterator[bool]:
        """Pause an active server while the context is open; yields whether it is paused: not every hypervisor can.

        Raises `BackendError` if it did not stay paused, `GuestHeld` if nobody knows whether it runs again, which the
        watchdog then goes on trying, and `Unavailable`.
        """
        self._watchdog.arm(server_id, self._order(server_id))
        asked = Outcome.UNKNOWN
        try:
            held = self._pause(call, server_id)
            asked = Outcome.DONE if held else Outcome.REFUSED
            before = self.history(server_id)
            yield held
            still = not held or self._is_still(server_id, before)
        finally:
            self.let_run(server_id)
            # A pause of unknown outcome may come after that look, and so may its end be the watchdog's.
            if asked is not Outcome.UNKNOWN:
                self._watchdog.disarm(server_id)
        if not still:
            raise BackendError(
                f"Server {server_id} did not stay paused while its volumes were cut: somebody let it run, or "
                f"Cinder took longer than the {self._seconds:g} s that a server may be paused for. Repeat the cut, or "
                "raise [openstack] pause_seconds."
            )

    def _is_still(self, server_id: str, before: list[str]) -> bool:
        status, after = _status(self._server(server_id)), self.history(server_id)
        still = status == _PAUSED and after == before
        if not still:
            since = [request for request in after if request not in before]
            LOG.warning("server %s is %s after its pause, and was asked for %s meanwhile", server_id, status, since)
        return still

    def let_run(self, server_id: str, pause: str | None = None) -> None:
        """Have a server run again that we paused, and return when it does; any other is left alone.

        `pause`: the request of the pause that is to end, a later one is left alone, too; None for whoever alone may
        pause the server. Raises `GuestHeld`.
        """
        meant = _Meant(pause)

        def look() -> bool | None:
            server = self._server(server_id)
            task = server["OS-EXT-STS:task_state"]
            if task in ("pausing", "unpausing"):
                return None
            if server["status"] != _PAUSED:
                return self._has_come_free(server, meant)
            if not self._is_meant(server_id, meant):
                return True
            with suppress(Conflict):
                self._act(server_id, {"unpause": None})
            return None

        # Nothing stops this, not even the end of the operation.
        unstoppable = Call(f"of server {server_id}", "", lambda: None, lambda _done, _total: None)
        try:
            self._waiting.until(unstoppable, self._timeout, f"server {server_id} to run again", look)
        except NotFound:
            return
        except BackendError as problem:
            raise GuestHeld(
                f"Server {server_id} may still be paused: {problem.message} Stillframe goes on trying; once Nova can, "
                f"unpause it: openstack server unpause {server_id}"
            ) from None

    def history(self, server_id: str) -> list[str]:
        """The requests that have let a server run or kept it from running, as Nova tells them, the latest first."""
        return [action["request_id"] for action in self._actions(server_id)]

    def abandoned(self) -> list[str]:
        """The servers that are paused at present, and that we paused last: by an operation that runs, or that did.

        Nova is asked for all at a time, and about those that have changed since they were last seen.
        """
        held = {
            server["id"]: server
            for query in ({"status": _PAUSED}, {"power_state": _HELD})
            for server in self._api.pages("/servers/detail", documents.SERVERS, all_tenants="1", **query)
        }
        return self._strangers.sort_out(held.values(), self._is_abandoned)

    def _is_abandoned(self, server: dict[str, Any]) -> bool:
        server_id = server["id"]
        found = self.pause_of_ours if server["status"] == _PAUSED else self._standing_pause
        return found(server_id) is not None

    def pause_of_ours(self, server_id: str) -> str | None:
        """The request of the last pause of a server, if it was ours."""
        latest = next((one for one in self._actions(server_id) if one["action"] == "pause"), None)
        return str(latest["request_id"]) if latest is not None and self._is_our_pause(latest) else None

    def _is_meant(self, server_id: str, meant: _Meant) -> bool:
        """Whether the last to pause a server were we, and by the pause that is to end.

        What somebody else has paused since is theirs, and an operation that has begun since ends its own pause.
        """
        last = self.pause_of_ours(server_id)
        return last is not None and meant.pause in (None, last)

    def _standing_pause(self, server_id: str) -> dict[str, Any] | None:
        """Our pause of a server, where nobody has asked for anything since."""
        latest = next(iter(self._actions(server_id)), None)
        return latest if latest is not None and self._is_our_pause(latest) else None

    def _is_our_pause(self, action: dict[str, Any]) -> bool:
        return bool(action["action"] == "pause" and action["user_id"] == self._cloud.user_id())

    def _has_come_free(self, server: dict[str, Any], meant: _Meant) -> bool | None:
        """Whether a server runs that Nova does not call paused; see `Waiting.until`.

        A nova-compute that is started forgets that a server was being paused, and pauses it when it comes to the
        request in its queue. Nova goes on calling the server active, and has to be brought to know before it unpauses.
        """
        server_id = server["id"]
        pause = self._standing_pause(server_id) if server["status"] == "ACTIVE" else None
        if pause is None or meant.pause not in (None, pause["request_id"]):
            return True
        told = self._hosts.diagnose(server_id)
        if told is Diagnosis.NOT_RUNNING:
            LOG.warning("server %s stands still though Nova calls it active; it is paused once more", server_id)
            with suppress(Conflict):
                self._act(server_id, {"pause": None})
                # Nova took it, so that it was the next to be asked for.
                meant.pause = meant.pause and self._next(server_id, meant.pause)
            return None
        return True if told is not Diagnosis.NO_ANSWER and self._is_finished(server_id, pause) else None

    def _is_finished(self, server_id: str, pause: dict[str, Any]) -> bool:
        """Whether nova-compute has come to the end of a pause, a good or a bad one."""
        path = f"/servers/{server_id}/os-instance-actions/{pause['request_id']}"
        events = self._api.get(path, documents.ACTION).get("events")
        return events is None or any(one["event"] == _PAUSE_EVENT and one.get("finish_time") for one in events)

    def _next(self, server_id: str, request: str) -> str:
        """The request that came right after another one."""
        requests = self.history(server_id)
        return requests[max(0, requests.index(request) - 1)] if request in requests else request

    def _pause(self, call: Call, server_id: str) -> bool:
        try:
            self._act(server_id, {"pause": None}, call.request_id)
        except Conflict as refusal:
            LOG.warning("server %s is cut without a pause: %s", server_id, refusal)
            return False

        def look() -> bool | None:
            server = self._server(server_id)
            return None if server["OS-EXT-STS:task_state"] is not None else _status(server) == _PAUSED

        held = self._waiting.until(call, self._seconds, f"server {server_id} to be paused", look)
        if not held:
            LOG.warning("server %s is cut without a pause: its hypervisor could not pause it", server_id)
        return held

    def _order(self, server_id: str) -> dict[str, Any]:
        way = self._cloud.credentials("compute", self._seconds + _RESCUE_SECONDS)
        return {
            "url": f"{way.endpoint}/servers/{server_id}",
            "headers": dict(way.headers),
            "verify": way.verify,
            "cert": way.cert,
            "seconds": self._seconds,
            "user_id": self._cloud.user_id(),
            "after": self._last_before_ours(server_id),
        }

    def _last_before_ours(self, server_id: str) -> str | None:
        """The last request that is no pause of ours: one that was never answered may have come by now."""
        others = dropwhile(self._is_our_pause, self._actions(server_id))
        return next((str(one["request_id"]) for one in others), None)

    def _actions(self, server_id: str) -> list[dict[str, Any]]:
        found = self._api.get(f"/servers/{server_id}/os-instance-actions", documents.ACTIONS)
        return [action for action in found if action["action"] in TURNS]

    def _server(self, server_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._api.get(f"/servers/{server_id}", documents.SERVER)
        return found

    def _act(self, server_id: str, action: dict[str, Any], request_id: str | None = None) -> None:
        self._api.act(f"/servers/{server_id}/action", action, request_id)


def _status(server: dict[str, Any]) -> str:
    return str(server["status"])
