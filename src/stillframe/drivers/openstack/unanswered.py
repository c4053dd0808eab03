"""Requests about volumes that Cinder has not answered, and may work on at any moment once it answers again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from stillframe.domain.errors import BackendError, Unavailable
from stillframe.drivers.call import Call
from stillframe.drivers.openstack.volumes import BUSY, Looking
from stillframe.drivers.openstack.waiting import TimedOut, Waiting

LOG = logging.getLogger(__name__)

# How many times as long it may answer nothing at all before a caller is told.
_AWAY: Final = 10


class _SilentAgain(BackendError):
    """Cinder has fallen silent while a late request was waited for."""


class Unanswered:
    """The volumes with such requests; `seconds`: in which one comes through, once Cinder answers again.

    Until then nothing that Cinder says of such a volume is gone by, nor is anything asked: it sets a status over
    whatever there is. A revert whose volume says something else at its end is never seen to end:
    `revert_to_snapshot` of cinder/volume/manager.py leaves its snapshot restoring.
    """

    def __init__(self, looking: Looking, waiting: Waiting, seconds: float) -> None:
        self._looking = looking
        self._waiting = waiting
        self._seconds = seconds
        # Of this process, for all attempts; what another one has asked for its successors must suppose.
        self._volumes: set[str] = set()

    def suppose(self, volume_id: str) -> None:
        """Take it that there is such a request about a volume."""
        self._volumes.add(volume_id)

    @contextmanager
    def noting(self, call: Call, volume_id: str) -> Iterator[None]:
        """Around a request that changes a volume."""
        try:
            yield
        except Unavailable as reason:
            LOG.warning("task %s: volume %s: a request was not answered: %s", call.operation_id, volume_id, reason)
            self.suppose(volume_id)
            raise

    def let_pass(self, call: Call, volume_id: str) -> None:
        """Wait until such a request has shown itself by its revert, or does not come any more; for no other volume.

        Raises `Unavailable` if Cinder goes on to be silent.
        """
        while volume_id in self._volumes:
            self._await_answer(call, volume_id)
            with suppress(_SilentAgain):
                self._await_late(call, volume_id)
                self._volumes.discard(volume_id)

    def _await_answer(self, call: Call, volume_id: str) -> None:
        seconds = _AWAY * self._seconds
        try:
            self._waiting.until(
                call, seconds, f"an answer about volume {volume_id}", lambda: self._looking.volume(volume_id)
            )
        except TimedOut:
            raise Unavailable(
                f"Cinder has not answered for {seconds:g} s what becomes of volume {volume_id}; see that its API is up."
            ) from None

    def _await_late(self, call: Call, volume_id: str) -> None:
        def look() -> bool | None:
            try:
                return self._looking.volume(volume_id)["status"] in BUSY or None
            except Unavailable:
                raise _SilentAgain("Cinder does not answer again; see that its API is up.") from None

        with suppress(TimedOut):
            self._waiting.until(call, self._seconds, f"a late request for volume {volume_id}", look)
