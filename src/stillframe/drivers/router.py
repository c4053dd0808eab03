"""A storage driver over several: each volume goes to the driver that the type of its source names."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from stillframe.domain.errors import (
    BackendError,
    Interrupted,
    NotFound,
    Refused,
    StillframeError,
    Unavailable,
    in_sentences,
)
from stillframe.domain.instance import Instance, Source, Volume
from stillframe.domain.snapshot import CopyName, CopyReference, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeDriver
from stillframe.drivers.storage import (
    Cut,
    PartOnly,
    PreparedCut,
    StorageCapabilities,
    StorageDriver,
    require_attached,
)

LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Member:
    """One of the drivers, the name that the settings choose it by, and the types of the sources that are its own."""

    name: str
    driver: StorageDriver
    serves: tuple[type[Source], ...]


@dataclass(frozen=True, slots=True)
class _Share:
    """What one driver has to do with an instance's cut."""

    member: Member
    names: tuple[CopyName, ...]
    prepared: PreparedCut | None = None


class Router:
    """See `StorageDriver`. It keeps nothing: an instance says what its volumes are, and a back end what copies it has.

    A copy goes to the driver in whose back end it was seen; one that is known by a record alone, to the driver of its
    volume as `compute` shows it, and where nobody can say what that is (any more), to whichever has the copy.
    """

    def __init__(self, members: Sequence[Member], compute: ComputeDriver) -> None:
        self._members = tuple(members)
        self._compute = compute

    @property
    def capabilities(self) -> StorageCapabilities:
        """What all of them can do."""
        every = [member.driver.capabilities for member in self._members]
        return StorageCapabilities(
            atomic_restore=all(one.atomic_restore for one in every),
            copy_progress=all(one.copy_progress for one in every),
        )

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        """See `StorageDriver`."""
        listed = _side_by_side([partial(one.driver.list_volumes, project_id) for one in self._members])
        found = {volume.id: volume for volumes in reversed(_whole(listed)) for volume in volumes}
        return sorted(found.values(), key=lambda one: (one.name, one.id))

    def get_volume(self, volume_id: str) -> Volume:
        """See `StorageDriver`."""
        return self._first(lambda one: one.driver.get_volume(volume_id), f"There is no volume {volume_id}.")

    def check_cut(self, instance: Instance, volume_ids: Sequence[str]) -> None:
        """See `StorageDriver`."""
        for volume_id in volume_ids:
            if volume_id not in instance.volume_ids:
                raise Refused(
                    f"Instance '{instance.name}' has no volume {volume_id}; choose one that is attached to it."
                )
        for member, volumes in self._among(instance, volume_ids).items():
            member.driver.check_cut(instance, volumes)

    def simultaneous(self, instance: Instance, volume_ids: Sequence[str]) -> bool:
        """See `StorageDriver`: two back ends have no instant in common."""
        shares = self._among(instance, volume_ids)
        return len(shares) == 1 and all(one.driver.simultaneous(instance, some) for one, some in shares.items())

    def prepare_cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> PreparedCut:
        """See `StorageDriver`: by all of them, at a time."""
        by_volume = {name.volume_id: name for name in names}
        shares = [
            _Share(member, tuple(by_volume[volume_id] for volume_id in volume_ids))
            for member, volume_ids in self._among(instance, list(by_volume)).items()
        ]
        made = _whole(
            _side_by_side([partial(one.member.driver.prepare_cut, call, instance, one.names) for one in shares])
        )
        ready = [replace(share, prepared=prepared) for share, prepared in zip(shares, made, strict=True)]
        return lambda at: _cut(at, instance, names, ready)

    def cut(
        self, call: Call, instance: Instance, names: Sequence[CopyName], prepared: PreparedCut | None = None
    ) -> Cut:
        """See `StorageDriver`: by all of them at a time, and it is over when the last one has come to its end.

        The window runs from the first request to a back end until the last volume is known to be cut, so that it is
        never too small. What one of them has cut where another one failed is half-made, as any copy of a failed cut.
        """
        return (prepared or self.prepare_cut(call, instance, names))(call)

    def complete(self, call: Call, copy: CopyReference) -> VolumeSnapshot:
        """See `StorageDriver`."""
        member = self._holder(call, copy)
        if member is not None:
            return _seen(member, member.driver.complete(call, copy))
        return self._first(
            lambda one: _seen(one, one.driver.complete(call, copy)), f"There is no copy {copy.id} in any back end."
        )

    def find(
        self, snapshot_id: str | None, instance_id: str | None = None, project_id: str | None = None
    ) -> Sequence[VolumeSnapshot]:
        """See `StorageDriver`: one that does not answer is missed unless the instance has no volume of its kind."""
        asked = [partial(one.driver.find, snapshot_id, instance_id, project_id) for one in self._members]
        found: list[VolumeSnapshot] = []
        missing: dict[Member, StillframeError] = {}
        for member, answer in zip(self._members, _side_by_side(asked), strict=True):
            if isinstance(answer, StillframeError):
                missing[member] = answer
                answer = answer.found if isinstance(answer, PartOnly) else ()  # noqa: PLW2901 -- what there is of it
            found += [_seen(member, copy) for copy in answer]
        found.sort(key=lambda copy: copy.id)
        needed = self._needed(instance_id, missing)
        if needed:
            raise PartOnly(in_sentences(error.message for error in needed), found)
        return found

    def check_restore(self, instance: Instance, copies: Mapping[str, str]) -> Mapping[str, str]:
        """See `StorageDriver`."""
        ways: dict[str, str] = {}
        for member, volumes in self._among(instance, list(copies)).items():
            ways |= member.driver.check_restore(instance, {volume_id: copies[volume_id] for volume_id in volumes})
        return ways

    def restore(self, call: Call, instance: Instance, volume_id: str, copy_id: str) -> None:
        """See `StorageDriver`."""
        member = self._serving(volume_id, require_attached(instance, volume_id))
        member.driver.restore(call, instance, volume_id, copy_id)

    def release(self, call: Call, volume_id: str) -> None:
        """See `StorageDriver`: a volume is given back also where it is not attached any more."""
        try:
            member = self._of_volume(call, volume_id)
        except NotFound:
            member = self._having(volume_id)
        member.driver.release(call, volume_id)

    def delete(self, call: Call, copy: CopyReference) -> None:
        """See `StorageDriver`.

        Where nobody has seen the copy, each is told to remove it, and has to answer, but those that its volume does not
        lie with: what they should have of it all the same is left over, and found as such.
        """
        member = None if copy.driver is None else self._named(copy.driver)
        if member is not None:
            member.driver.delete(call, copy)
            return
        owner = self._holder(call, copy)
        told = _side_by_side([partial(one.driver.delete, call, copy) for one in self._members])
        for one, answer in zip(self._members, told, strict=True):
            if isinstance(answer, StillframeError):
                if owner in (None, one) or isinstance(answer, Interrupted):
                    raise answer
                LOG.warning("whether '%s' has the copy %s is not known: %s", one.name, copy.id, answer)

    def _among(self, instance: Instance, volume_ids: Sequence[str]) -> dict[Member, list[str]]:
        """Which volumes go to which driver; raises `NotFound`, and `Refused` for one that goes to none."""
        shares: dict[Member, list[str]] = {}
        for volume_id in volume_ids:
            source = require_attached(instance, volume_id)
            shares.setdefault(self._serving(volume_id, source), []).append(volume_id)
        return shares

    def _serving(self, volume_id: str, source: Source) -> Member:
        for member in self._members:
            if isinstance(source, member.serves):
                return member
        names = ", ".join(member.name for member in self._members)
        raise Refused(
            f"Volume {volume_id} is of a kind that no storage driver of the settings sees to (there are: {names}); "
            "name its driver in [drivers] storage, too, or take the snapshot without this volume."
        )

    def _of_volume(self, call: Call, volume_id: str) -> Member:
        """The driver of a volume of the instance that the call is about; raises `NotFound` and `Refused`."""
        if call.instance_id is None:
            raise NotFound(f"Nothing says which instance has the volume {volume_id}.")
        instance = self._compute.get_instance(call.instance_id)
        return self._serving(volume_id, require_attached(instance, volume_id))

    def _having(self, volume_id: str) -> Member:
        """The driver that has a volume, whatever it is attached to; raises `NotFound`."""

        def look(member: Member) -> Member:
            member.driver.get_volume(volume_id)
            return member

        return self._first(look, f"There is no volume {volume_id}.")

    def _holder(self, call: Call, copy: CopyReference) -> Member | None:
        """The driver that has a copy, as far as it can be told without asking them."""
        if copy.driver is not None and (member := self._named(copy.driver)) is not None:
            return member
        if copy.volume_id is None:
            return None
        try:
            return self._of_volume(call, copy.volume_id)
        except (NotFound, Refused):
            return None

    def _named(self, name: str) -> Member | None:
        return next((one for one in self._members if one.name == name), None)

    def _needed(self, instance_id: str | None, missing: Mapping[Member, StillframeError]) -> list[StillframeError]:
        """The errors of those that may have what was asked for: any, or the volumes of an instance lie with them."""
        if not missing or instance_id is None:
            return list(missing.values())
        try:
            instance = self._compute.get_instance(instance_id)
            theirs = self._among(instance, instance.volume_ids)
        except StillframeError:
            return list(missing.values())
        return [error for member, error in missing.items() if member in theirs]

    def _first(self, ask: Callable[[Member], T], nobody: str) -> T:
        """The answer of the first that has what is asked for; raises what keeps it from being known that none has."""
        unknown: StillframeError | None = None
        for member in self._members:
            try:
                return ask(member)
            except NotFound:
                continue
            except (Unavailable, BackendError) as error:
                unknown = unknown or error
        raise unknown or NotFound(nobody)


def _cut(call: Call, instance: Instance, names: Sequence[CopyName], shares: Sequence[_Share]) -> Cut:
    first = time.monotonic()
    cuts = _whole(
        _side_by_side([partial(one.member.driver.cut, call, instance, one.names, one.prepared) for one in shares])
    )
    window = (time.monotonic() - first) * 1000
    copies = {
        copy.name: _seen(share.member, copy) for share, cut in zip(shares, cuts, strict=True) for copy in cut.snapshots
    }
    alone = len(cuts) == 1
    return Cut(
        tuple(copies[name] for name in names),
        simultaneous=alone and cuts[0].simultaneous,
        window_ms=cuts[0].window_ms if alone else window,
    )


def _seen(member: Member, copy: VolumeSnapshot) -> VolumeSnapshot:
    return replace(copy, driver=member.name)


def _side_by_side(questions: Sequence[Callable[[], T]]) -> list[T | StillframeError]:
    """What becomes of each, when all have come to an end; none goes on after that, whatever became of another one."""
    with ThreadPoolExecutor(max(1, len(questions)), thread_name_prefix="router") as pool:
        # Each thread logs on behalf of whoever asks.
        asked = [pool.submit(copy_context().run, _outcome, one) for one in questions]
    return [one.result() for one in asked]


def _outcome(question: Callable[[], T]) -> T | StillframeError:
    try:
        return question()
    except StillframeError as error:
        return error


def _whole(outcomes: Sequence[T | StillframeError]) -> list[T]:
    """What all have answered; raises the error of one that did not, and rather one that trying again does not mend."""
    errors = [one for one in outcomes if isinstance(one, StillframeError)]
    if errors:
        raise next((error for error in errors if not isinstance(error, Unavailable)), errors[0])
    return [one for one in outcomes if not isinstance(one, StillframeError)]
