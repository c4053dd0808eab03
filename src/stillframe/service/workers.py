"""The use case of looking at the workers: who there is, and whether it is alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillframe.service.caller import Caller
    from stillframe.service.policy import Policy
    from stillframe.store.presence import Presence, SeenWorker


@dataclass(frozen=True, slots=True)
class WorkerService:
    """Workers as operators may see them; one that has been silent for `claim_seconds` counts as dead."""

    presence: Presence
    policy: Policy
    claim_seconds: float

    def list(self, caller: Caller) -> Sequence[SeenWorker]:
        """Those that run, and those that ended within a day without taking their leave; raises `Forbidden`."""
        self.policy.require(caller, "worker:list", caller.project_id)
        return self.presence.all()

    def is_up(self, worker: SeenWorker) -> bool:
        """Whether it was heard of lately, by the database's clock."""
        return worker.silent_seconds <= self.claim_seconds
