"""Beginning to work when nobody is in the way: what the release before is in the middle of is not touched."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import Unavailable

if TYPE_CHECKING:
    from stillframe.drivers.preparation import Preparation

LOG = logging.getLogger(__name__)

_LOOK_EVERY: Final = 1.0

Quiet = Callable[[], AbstractContextManager[bool]]


class Preparing:
    """Has the platforms prepared at a moment when no worker is at anything, then begins; at once if nothing is needed.

    `quiet` says whether nobody is, and keeps it so until its block ends; without it, no other process works.
    """

    def __init__(
        self,
        preparations: Sequence[Preparation],
        quiet: Quiet | None,
        beginnings: Sequence[Callable[[], None]],
    ) -> None:
        self._preparations = preparations
        self._quiet = quiet
        self._beginnings = beginnings
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, or wait for the moment in a thread of its own."""
        needed = [one for one in self._preparations if one.needed()]
        if needed and self._quiet is not None:
            self._thread = threading.Thread(
                target=self._wait, args=(needed, self._quiet), name="preparing", daemon=True
            )
            self._thread.start()
            return
        for one in needed:
            one.run()
        self._begin_all()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()

    def ended(self, seconds: float) -> bool:
        """Whether nothing of it runs any more, waited for so long."""
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _begin_all(self) -> None:
        for begin in self._beginnings:
            begin()

    def _wait(self, needed: Sequence[Preparation], quiet: Quiet) -> None:
        told = False
        while not self._stopping.is_set():
            try:
                if _prepared(needed, quiet):
                    if not self._stopping.is_set():
                        self._begin_all()
                    return
                if not told:
                    LOG.warning("operations of the release before are under way; this process works once they are over")
                told = True
            except Unavailable as error:
                LOG.warning("what the release before left is prepared later: %s", error)
            except Exception:
                LOG.exception("what the release before left could not be prepared; it is tried again")
            self._stopping.wait(_LOOK_EVERY)


def _prepared(needed: Sequence[Preparation], quiet: Quiet) -> bool:
    """Whether it could be done now."""
    with quiet() as nobody_works:
        if nobody_works:
            for one in needed:
                one.run()
    return nobody_works
