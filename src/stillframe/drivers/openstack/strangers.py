"""Servers that are none of ours: asked about when they have changed, and not at every look."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from stillframe.domain.errors import NotFound

# Nova tells its times in whole seconds, so that within one a server may change twice and look the same.
RESOLUTION: Final = 2.0
# So many are asked about at a look, those first that have changed last: what we did was not long ago.
MOST: Final = 100

_Server = dict[str, Any]


@dataclass
class _Known:
    server: _Server
    since: float
    judged: float = float("-inf")
    ours: bool = False

    @property
    def updated(self) -> str:
        return self.server.get("updated") or ""

    def is_settled(self, resolution: float) -> bool:
        return bool(self.updated) and not self.ours and self.judged - self.since > resolution


class Strangers:
    """What was found out about servers, as long as Nova says that they have not changed since."""

    def __init__(self, resolution: float = RESOLUTION) -> None:
        self._resolution = resolution
        self._known: dict[str, _Known] = {}

    def sort_out(self, servers: Iterable[_Server], is_ours: Callable[[_Server], bool]) -> list[str]:
        """The ids of those that are ours, as far as they were asked about by now."""
        self._known = {server["id"]: self._as_known(server) for server in servers}
        due = sorted(
            (one for one in self._known.values() if not one.is_settled(self._resolution)), key=lambda one: one.updated
        )
        due.reverse()
        for one in sorted(due, key=lambda one: (not one.ours, one.judged))[:MOST]:
            one.judged, one.ours = time.monotonic(), False
            # It may be gone by now.
            with suppress(NotFound):
                one.ours = is_ours(one.server)
        return [server_id for server_id, one in self._known.items() if one.ours]

    def _as_known(self, server: _Server) -> _Known:
        known = self._known.get(server["id"])
        same = known is not None and known.updated and known.updated == server.get("updated")
        return known if same and known is not None else _Known(server, time.monotonic())
