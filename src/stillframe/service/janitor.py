"""The janitor: now and then, what is certain to be needed by nobody is removed without being asked for."""

from __future__ import annotations

import logging
import random
from collections import Counter
from typing import TYPE_CHECKING

from stillframe.domain.errors import Interrupted, StillframeError
from stillframe.domain.leftover import LeftoverKind
from stillframe.service.background import Background

if TYPE_CHECKING:
    from stillframe.service.leftovers import Leftovers
    from stillframe.service.metrics import Metrics

LOG = logging.getLogger(__name__)


class Janitor(Background):
    """Sweeps every `interval` seconds (0: never) while it runs.

    Each worker has one, and they do not know of each other: what two of them remove at a time is removed once.
    """

    def __init__(self, leftovers: Leftovers, metrics: Metrics, interval: float) -> None:
        super().__init__("janitor")
        self._leftovers = leftovers
        self._metrics = metrics
        self._interval = interval

    def start(self) -> None:
        """Begin the rounds."""
        if self._interval > 0:
            self._begin(self._run)

    def sweep(self) -> None:
        """Remove what is sure; of the rest, say how much there is, and of copies, whether all are there."""
        complete, unsure = True, Counter[str]()
        for kind in LeftoverKind:
            try:
                found = self._leftovers.look(kind)
            except StillframeError as error:
                LOG.warning("the janitor could not look for leftovers of kind %s: %s", kind, error)
                complete = False
                continue
            for leftover in found:
                if leftover.sure:
                    outcome, _why = self._leftovers.remove(leftover, self._check)
                    self._metrics.leftover_swept(kind.value, outcome.value)
                else:
                    unsure[kind.value] += 1
            self._metrics.leftovers_unsure(kind.value, unsure[kind.value])
        if unsure:
            told = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(unsure.items()))
            LOG.warning("leftovers that only an operator can judge: %s; see 'stillframe doctor'", told)
        complete = self._tell_losses() and complete
        self._metrics.sweep_finished("complete" if complete else "incomplete")

    def _tell_losses(self) -> bool:
        try:
            lost = self._leftovers.losses()
        except StillframeError as error:
            LOG.warning("the janitor could not look whether copies are lost: %s", error)
            return False
        for loss in lost:
            LOG.error("copy %s of instance snapshot %s is lost: %s", loss.copy_id, loss.snapshot_id, loss.why)
        self._metrics.copies_lost(len(lost))
        return True

    def _run(self) -> None:
        # Not all workers at the same moment, and none at its start, when there is enough to do.
        while not self._stopping.wait(self._interval * random.uniform(0.5, 1.0)):  # noqa: S311  # nothing to guess
            try:
                self.sweep()
            except Interrupted:
                return
            except Exception:
                LOG.exception("the janitor broke off; it tries again next time")
                self._metrics.sweep_finished("failed")
