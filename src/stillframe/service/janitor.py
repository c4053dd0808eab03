"""The janitor: now and then, what is certain to be needed by nobody is removed without being asked for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import Interrupted, StillframeError
from stillframe.domain.leftover import LeftoverKind
from stillframe.service.background import Job, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stillframe.service.leftovers import Leftover, Leftovers
    from stillframe.service.metrics import Metrics

LOG = logging.getLogger(__name__)

#: What a round counts: copies that cannot be restored from any more, and leftovers that it leaves to an operator.
COPIES_LOST: Final = "copies_lost"
UNSURE: Final[Mapping[LeftoverKind, str]] = {kind: f"{kind.value}_unsure" for kind in LeftoverKind}

# A look at all copies of a large cloud, or at all bytes of the copies of a machine, takes its time.
_HANG_SECONDS: Final = 3600.0


class Janitor(Job):
    """Removes what is sure; of the rest, says how much there is, and of copies, whether all are there.

    What two of them remove at a time is removed once: a worker of the release before may have one, too.
    """

    name = "janitor"

    def __init__(
        self, leftovers: Leftovers, metrics: Metrics, interval: float, hang_seconds: float = _HANG_SECONDS
    ) -> None:
        self._leftovers = leftovers
        self._metrics = metrics
        self.interval = interval
        self.hang_seconds = hang_seconds

    def run(self, run: Run) -> Mapping[str, int]:
        """See `Job`."""
        try:
            counts = self._count(run)
        except Interrupted:
            raise
        except Exception:
            self._metrics.sweep_finished("failed")
            raise
        complete = counts.keys() == {COPIES_LOST, *UNSURE.values()}
        self._metrics.sweep_finished("complete" if complete else "incomplete")
        return counts

    def _count(self, run: Run) -> dict[str, int]:
        """What was found, without what could not be looked at."""
        counts: dict[str, int] = {}
        for kind in LeftoverKind:
            run.check()
            try:
                found = self._leftovers.look(kind)
            except StillframeError as error:
                LOG.warning("the janitor could not look for leftovers of kind %s: %s", kind, error)
                continue
            for leftover in found:
                if leftover.sure:
                    self._remove(leftover, run)
            counts[UNSURE[kind]] = sum(not leftover.sure for leftover in found)
        told = ", ".join(f"{counts[UNSURE[kind]]} of kind {kind}" for kind in LeftoverKind if counts.get(UNSURE[kind]))
        if told:
            LOG.warning("leftovers that only an operator can judge: %s; see 'stillframe doctor'", told)
        run.check()
        try:
            lost = self._leftovers.losses()
        except StillframeError as error:
            LOG.warning("the janitor could not look whether copies are lost: %s", error)
            return counts
        for loss in lost:
            LOG.error("copy %s of instance snapshot %s is lost: %s", loss.copy_id, loss.snapshot_id, loss.why)
        return {**counts, COPIES_LOST: len(lost)}

    def _remove(self, leftover: Leftover, run: Run) -> None:
        outcome, _why = self._leftovers.remove(leftover, run.check, run.caller.request_id)
        self._metrics.leftover_swept(leftover.kind.value, outcome.value)
