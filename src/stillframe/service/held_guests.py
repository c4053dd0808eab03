"""Guests that may be held still though nobody works on them: known to whoever asks, and let go as soon as it works.

A guest that was frozen or paused, and was not seen free since, must not wait for the janitor's next round.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import Interrupted, StillframeError
from stillframe.domain.leftover import LeftoverKind
from stillframe.service.background import Round
from stillframe.service.leftovers import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from stillframe.service.leftovers import Leftover, Leftovers

LOG = logging.getLogger(__name__)

_INTERVAL: Final = 5.0
# Each may take as long as a guest that does not answer is waited for; they must not keep the others waiting.
_AT_A_TIME: Final = 8


class HeldGuests:
    """What is known of them, looked at anew where it is older than `seconds`; safe to use from threads."""

    def __init__(self, look: Callable[[], Collection[str]], seconds: float = 1.0) -> None:
        self._look = look
        self._seconds = seconds
        self._lock = threading.Lock()
        self._known: tuple[float, frozenset[str] | None] = (float("-inf"), None)

    def ids(self, changed: float = float("inf")) -> frozenset[str] | None:
        """The ids of their instances; None where nobody can tell at present.

        `changed`: so many seconds ago something ended that may have left one; a look from before then is no answer.
        """
        with self._lock:
            if time.monotonic() - self._known[0] > min(self._seconds, changed):
                try:
                    found: frozenset[str] | None = frozenset(self._look())
                except StillframeError as error:
                    LOG.warning("nobody can tell which guests may be held still: %s", error)
                    found = None
                self._known = (time.monotonic(), found)
            return self._known[1]


class Releaser(Round):
    """Lets them go, until each was seen free.

    Each worker has one, for a guest may be in the reach of one machine only, and must not wait for a claim to run out.
    They do not know of each other: a guest that two of them let go at a time is let go once.
    """

    name = "releaser"

    def __init__(self, leftovers: Leftovers, interval: float = _INTERVAL) -> None:
        self._leftovers = leftovers
        self.interval = interval
        self._lock = threading.Lock()
        self._trying: set[str] = set()
        self._tried: dict[str, float] = {}

    def go(self, check: Callable[[], None]) -> None:
        """Try to let go all that are not being tried already, those first that were tried longest ago."""
        left = [one for one in self._leftovers.look(LeftoverKind.QUIESCE) if one.sure]
        with self._lock:
            self._tried = {one.id: self._tried.get(one.id, 0.0) for one in left}
            waiting = sorted((one for one in left if one.id not in self._trying), key=lambda one: self._tried[one.id])
            chosen = waiting[: _AT_A_TIME - len(self._trying)]
            for one in chosen:
                self._trying.add(one.id)
                self._tried[one.id] = time.monotonic()
        for one in chosen:
            threading.Thread(target=self._release, args=(one, check), name="release", daemon=True).start()

    def _release(self, leftover: Leftover, check: Callable[[], None]) -> None:
        try:
            outcome, why = self._leftovers.remove(leftover, check)
            if outcome is Outcome.FAILED:
                LOG.error("the guest of instance %s may be held still: %s", leftover.id, why)
        except Interrupted:
            return
        except Exception:
            LOG.exception("the guest of instance %s may be held still", leftover.id)
        finally:
            with self._lock:
                self._trying.discard(leftover.id)
