"""Looking for what was left behind, and removing it; one decision at a time, each made anew before it is acted on."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import Conflict, Interrupted, StillframeError
from stillframe.domain.leftover import (
    Judgement,
    LeftoverKind,
    Verdict,
    judge_copy,
    judge_draft,
    judge_fence,
    judge_lock,
)
from stillframe.drivers.call import Call
from stillframe.drivers.leftovers import Loss
from stillframe.drivers.storage import PartOnly
from stillframe.logs.context import about

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from stillframe.domain.snapshot import VolumeSnapshot
    from stillframe.drivers.compute import ComputeDriver
    from stillframe.drivers.leftovers import DriverLeftovers, FoundDraft
    from stillframe.drivers.storage import StorageDriver
    from stillframe.service.sightings import Sightings
    from stillframe.store.leftovers import LeftoverStore

LOG = logging.getLogger(__name__)

# What is judged by what is on record.
_JUDGED: Final = frozenset({LeftoverKind.COPY, LeftoverKind.FENCE, LeftoverKind.LOCK})
_OLDER: Final = "an older state of the database was put back, and has to be accepted first"


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that was left behind.

    `id` is its own: a copy's, an instance's, or a path. `about` is what an operator names it by: the id of the instance
    snapshot or of the operation that it carries. `sure`: it is certain that nobody needs it. `size` is in bytes.
    """

    kind: LeftoverKind
    id: str
    about: str
    why: str
    sure: bool
    size: int = 0


class Outcome(StrEnum):
    """`SPARED`: it is needed after all, or is being worked on."""

    REMOVED = "removed"
    SPARED = "spared"
    FAILED = "failed"


class Leftovers:
    """All that was left behind, by `look`, and its removal, by `remove`; both change nothing that somebody needs.

    `compute` is called while operations on an instance wait, and should not try for long. What an operation left is
    looked at once the operation has ended `grace` ago. `sightings`: None for who looks only once, and cannot tell for
    how long a draft has been one.
    """

    def __init__(  # it is made in one place, of what there is
        self,
        store: LeftoverStore,
        compute: ComputeDriver,
        storage: StorageDriver,
        driver_leftovers: DriverLeftovers | None,
        now: Callable[[], datetime],
        grace: timedelta,
        sightings: Sightings | None = None,
    ) -> None:
        self._store = store
        self._compute = compute
        self._storage = storage
        self._driver_leftovers = driver_leftovers
        self._now = now
        self._grace = grace
        self._sightings = sightings

    def look(self, kind: LeftoverKind) -> Sequence[Leftover]:
        """What there is of a kind; raises `Unavailable`, `BackendError`."""
        looks = {
            LeftoverKind.COPY: self._copies,
            LeftoverKind.FENCE: self._fences,
            LeftoverKind.QUIESCE: self._quiesced,
            LeftoverKind.LOCK: self._locks,
            LeftoverKind.DRAFT: self._drafts,
        }
        if kind in _JUDGED and self._store.is_held():
            return [replace(one, sure=False, why=f"{one.why}; {_OLDER}") for one in looks[kind]()]
        return list(looks[kind]())

    def losses(self) -> Sequence[Loss]:
        """What is missing instead of left over: copies that cannot be restored from; raises as `look`."""
        told = list(self._driver_leftovers.losses()) if self._driver_leftovers is not None else []
        known = {loss.copy_id for loss in told}
        return [*told, *(loss for loss in self._missing() if loss.copy_id not in known)]

    def _missing(self) -> Iterator[Loss]:
        """Copies that are on record, and that the storage does not have."""
        shown = self._store.shown()
        try:
            missing = shown.keys() - {copy.id for copy in self._storage.find(None)} if shown else set()
        except PartOnly as part:
            LOG.warning("copies are not missed, for a part of the back end does not answer: %s", part)
            return
        # One that is being deleted is missed by nobody.
        for copy_id, snapshot_id in self._store.shown().items() if missing else ():
            if copy_id in missing:
                yield Loss(copy_id, snapshot_id, "the storage does not have it (any more)")

    def remove(
        self, leftover: Leftover, check: Callable[[], None], request_id: str | None = None
    ) -> tuple[Outcome, str]:
        """Judge once more, then remove; the outcome, and the reason for any but success.

        `check` may raise `Interrupted`, which leaves it for the next time, as a kill does. `request_id`: that of
        whoever removes more than this.
        """
        removals = {
            LeftoverKind.COPY: self._remove_copy,
            LeftoverKind.FENCE: self._remove_fence,
            LeftoverKind.QUIESCE: self._let_run,
            LeftoverKind.LOCK: self._remove_lock,
            LeftoverKind.DRAFT: self._remove_draft,
        }
        request_id = request_id or f"req-{uuid.uuid4()}"
        with about(request_id):
            try:
                check()
                if leftover.kind in _JUDGED and self._store.is_held():
                    return Outcome.SPARED, _OLDER
                spared = removals[leftover.kind](leftover, _call(leftover, request_id, check))
            except Interrupted:
                raise
            except Conflict as error:
                return Outcome.SPARED, error.message
            except StillframeError as error:
                LOG.warning("leftover %s %s was not removed: %s", leftover.kind, leftover.id, error)
                return Outcome.FAILED, error.message
            if spared is not None:
                return Outcome.SPARED, spared
            LOG.info("leftover %s %s was removed: %s", leftover.kind, leftover.id, leftover.why)
            return Outcome.REMOVED, ""

    @property
    def _before(self) -> datetime:
        return self._now() - self._grace

    def _copies(self) -> Iterator[Leftover]:
        # The copies first: an operation is on record before it makes one. And in all projects: after a loss of the
        # store nobody knows which had any.
        for copy, verdict in self._judged(self._seen(None)):
            yield from _unless_kept(LeftoverKind.COPY, copy.id, copy.name.snapshot_id, verdict, copy.size)

    def _judged(self, found: Sequence[VolumeSnapshot]) -> Iterator[tuple[VolumeSnapshot, Judgement]]:
        makers = self._store.makers({copy.name.operation_id for copy in found})
        owners = self._store.owners({copy.name.snapshot_id for copy in found})
        for copy in found:
            maker, owner = makers.get(copy.name.operation_id), owners[copy.name.snapshot_id]
            yield copy, judge_copy(copy, maker, owner, self._before)

    def _remove_copy(self, leftover: Leftover, call: Call) -> str | None:
        # On record for all that is sure to be nobody's; a copy that lies elsewhere only pretends to be ours.
        project_id = self._store.owners({leftover.about})[leftover.about].project_id
        found = [copy for copy in self._seen(leftover.about, leftover.id, project_id) if copy.id == leftover.id]
        for copy, verdict in self._judged(found):
            if not _stands(verdict, leftover):
                return verdict.why
            self._storage.delete(call, copy.reference)
        return None

    def _seen(
        self, snapshot_id: str | None, copy_id: str | None = None, project_id: str | None = None
    ) -> Sequence[VolumeSnapshot]:
        """Copies in what answers of the back end; raises `Unavailable` if a certain one may be in what does not."""
        try:
            return self._storage.find(snapshot_id, project_id=project_id)
        except PartOnly as part:
            if copy_id is not None and copy_id not in {copy.id for copy in part.found}:
                raise
            LOG.warning("leftovers are looked for in a part of the back end only: %s", part)
            return part.found

    def _fences(self) -> Iterator[Leftover]:
        noted = {(fence.instance_id, fence.snapshot_id) for fence in self._store.fences()}
        fences = sorted(noted | set(self._compute.fences().items()))
        owners = self._store.owners({snapshot_id for _, snapshot_id in fences})
        for instance_id, snapshot_id in fences:
            verdict = judge_fence(owners[snapshot_id], self._before)
            yield from _unless_kept(LeftoverKind.FENCE, instance_id, snapshot_id, verdict)

    def _remove_fence(self, leftover: Leftover, _call: Call) -> str | None:
        with self._store.holding(leftover.id) as held:
            verdict = judge_fence(held.owner(leftover.about), self._before)
            if not _stands(verdict, leftover):
                return verdict.why
            self._compute.unfence(leftover.id, leftover.about)
            held.drop_fence(leftover.about)
        return None

    def _quiesced(self) -> Iterator[Leftover]:
        noted = self._driver_leftovers.quiesced() if self._driver_leftovers is not None else ()
        # An operation lets its guest go by itself, or its next attempt does.
        held = {lock.instance_id for lock in self._store.locks()} if noted else frozenset()
        for instance_id in noted:
            if instance_id not in held:
                why = "its guest may be held still: nobody has seen that it goes on, and no operation runs on it"
                yield Leftover(LeftoverKind.QUIESCE, instance_id, instance_id, why, sure=True)

    def _let_run(self, leftover: Leftover, _call: Call) -> str | None:
        def require_free() -> None:
            if any(lock.instance_id == leftover.id for lock in self._store.locks()):
                raise Conflict("An operation runs on it; wait for its end.")

        # Not holding the instance: a guest that does not answer is waited for, and no operation must wait for that.
        if self._driver_leftovers is not None:
            self._driver_leftovers.let_run(leftover.id, require_free)
        return None

    def _locks(self) -> Iterator[Leftover]:
        for lock in self._store.locks():
            verdict = judge_lock(lock.holder, self._before)
            yield from _unless_kept(LeftoverKind.LOCK, lock.instance_id, lock.operation_id, verdict)

    def _remove_lock(self, leftover: Leftover, _call: Call) -> str | None:
        for lock in self._store.locks():
            if (lock.instance_id, lock.operation_id) == (leftover.id, leftover.about):
                verdict = judge_lock(lock.holder, self._before)
                if not _stands(verdict, leftover):
                    return verdict.why
                self._store.drop_lock(leftover.id, leftover.about)
        return None

    def _drafts(self) -> Iterator[Leftover]:
        for draft, verdict in self._judged_drafts().items():
            yield from _unless_kept(LeftoverKind.DRAFT, draft.id, draft.id, verdict)

    def _judged_drafts(self) -> Mapping[FoundDraft, Judgement]:
        found = self._driver_leftovers.drafts() if self._driver_leftovers is not None else ()
        ages = self._sightings.ages(found) if self._sightings is not None else {}
        return {one: judge_draft(certain=one.state is None, age=ages.get(one), grace=self._grace) for one in found}

    def _remove_draft(self, leftover: Leftover, _call: Call) -> str | None:
        for draft, verdict in self._judged_drafts().items():
            if draft.id == leftover.id and self._driver_leftovers is not None:
                if not _stands(verdict, leftover):
                    return verdict.why
                self._driver_leftovers.remove(draft)
        return None


def _call(leftover: Leftover, request_id: str, check: Callable[[], None]) -> Call:
    return Call(leftover.about, request_id, check, lambda _done, _total: None)


def _unless_kept(kind: LeftoverKind, own: str, about: str, verdict: Judgement, size: int = 0) -> Iterator[Leftover]:
    if verdict.verdict is not Verdict.KEEP:
        yield Leftover(kind, own, about, verdict.why, sure=verdict.verdict is Verdict.REMOVE, size=size)


def _stands(verdict: Judgement, leftover: Leftover) -> bool:
    """Whether a judgement still allows what was decided: what was sure has to be sure again."""
    return verdict.verdict is Verdict.REMOVE or (verdict.verdict is Verdict.ASK and not leftover.sure)
