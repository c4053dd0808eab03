"""Since when things have been seen as they are, by this process's own clock.

What a platform notes of a thing's age is of another clock than ours, and the two need not agree. So such a time only
tells one state from another, and how long a state has lasted is counted here. A process that has just been started
knows nothing.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stillframe.drivers.leftovers import FoundDraft


class Sightings:
    """What each look has found; a thing that changes, or is missing from one look, counts from then on as new.

    `now` in seconds; it need not go on while the machine is suspended, for whoever is at a thing is suspended, too.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: Mapping[FoundDraft, float] = {}

    def ages(self, found: Iterable[FoundDraft]) -> Mapping[FoundDraft, timedelta]:
        """For how long each has been seen like this; `found` is all that there is at present."""
        now = self._now()
        self._since = {one: self._since.get(one, now) for one in found}
        return {one: timedelta(seconds=now - since) for one, since in self._since.items()}
