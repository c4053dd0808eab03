"""Putting a volume back to a snapshot while it stays attached.

The server is off and locked by then. Cinder's own ways ask for a volume that is `available`; so that is what its status
says for a moment, and nothing but its status: an attachment that was ever called detached does not come back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stillframe.domain.errors import (
    BackendError,
    Damaged,
    NotFound,
    NotSupported,
    Refused,
    StillframeError,
)
from stillframe.domain.snapshot import CopyKind
from stillframe.drivers.call import Call
from stillframe.drivers.openstack import volumes
from stillframe.drivers.openstack.backends import EXTENSION, Backends, Habits
from stillframe.drivers.openstack.cloud import Api, Cloud
from stillframe.drivers.openstack.documents import moment
from stillframe.drivers.openstack.reimaging import Reimaging
from stillframe.drivers.openstack.strategy import Circumstances, Strategy, choose
from stillframe.drivers.openstack.unanswered import Unanswered
from stillframe.drivers.openstack.volume_hosts import INTERVAL, ServiceDown, VolumeHosts
from stillframe.drivers.openstack.volumes import BUSY, STORAGE, Document, Looking
from stillframe.drivers.openstack.waiting import TimedOut, Waiting
from stillframe.drivers.problems import Problem

LOG = logging.getLogger(__name__)

_RESTORABLE: Final = ("available", "in-use", "error", *BUSY)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A volume, and snapshots of it, as Cinder described them a moment ago."""

    volume: Document
    snapshots: list[Document]


@dataclass(frozen=True, slots=True)
class Times:
    """How long things may take, in seconds.

    `timeout`: until a revert that neither ends nor fails counts as lost with the service that ran it. `late`: in
    which a request that was not answered may still come through, once Cinder answers again. `interval`: between two
    queries whether the service that reverts a volume is alive.
    """

    timeout: float
    late: float
    interval: float = INTERVAL


class Reverter:
    """Reverts volumes by the best way there is; any attempt may be broken off and made again."""

    def __init__(
        self, cloud: Cloud, looking: Looking, waiting: Waiting, backends: Backends, times: Times, *, reimage: bool
    ) -> None:
        self._cloud = cloud
        self._looking = looking
        self._waiting = waiting
        self._backends = backends
        self._times = times
        self._allows_reimage = reimage
        self._reimaging = Reimaging(cloud)
        self._hosts = VolumeHosts(cloud, times.interval)
        self._unanswered = Unanswered(looking, waiting, times.late)

    @property
    def _api(self) -> Api:
        return self._cloud.service(STORAGE)

    def check(self, volume_id: str, snapshot_id: str) -> tuple[Document, Document, Strategy]:
        """The volume, the snapshot, and how one goes back to the other; raises as `StorageDriver.check_restore`."""
        volume = self._looking.volume(volume_id)
        return self._choose(_Seen(volume, volumes.snapshots_of(self._api, volume_id)), snapshot_id)

    def _choose(self, seen: _Seen, snapshot_id: str) -> tuple[Document, Document, Strategy]:
        """See `check`; one look at all snapshots of the volume shows this one, too, and whether it is the newest."""
        volume, volume_id = seen.volume, seen.volume["id"]
        snapshot = next((one for one in seen.snapshots if one["id"] == snapshot_id), None)
        if snapshot is None:
            # It is gone, or another volume's.
            snapshot = self._elsewhere(snapshot_id, volume_id)
        if volume["status"] not in _RESTORABLE:
            raise Refused(f"Volume {volume_id} is {volume['status']}; wait until Cinder is done with it.")
        if snapshot["volume_id"] != volume_id:
            raise Refused(
                f"Snapshot {snapshot_id} is of volume {snapshot['volume_id']}, not of {volume_id}; choose one of that."
            )
        if snapshot["status"] not in ("available", "restoring"):
            raise Damaged(
                f"Snapshot {snapshot_id} is {snapshot['status']} and cannot be restored from; "
                "choose another instance snapshot."
            )
        if volume["size"] != snapshot["size"]:
            raise Refused(
                f"Volume {volume_id} has {volume['size']} GiB and had {snapshot['size']} when the snapshot was taken, "
                "and Cinder cannot shrink it: make a new volume from the snapshot and attach that instead."
            )
        if len(volume["attachments"]) > 1:
            raise Refused(f"Volume {volume_id} is attached more than once; detach it from the other servers first.")
        return volume, snapshot, choose(volume_id, self._circumstances(seen, snapshot))

    def _elsewhere(self, snapshot_id: str, volume_id: str) -> Document:
        try:
            return volumes.get_snapshot(self._api, snapshot_id)
        except NotFound:
            raise NotFound(
                f"Snapshot {snapshot_id} of volume {volume_id} is gone: somebody has deleted it in Cinder. The volume "
                "cannot be put back to it; what is left of the instance snapshot can be deleted."
            ) from None

    def revert(self, call: Call, volume_id: str, snapshot_id: str) -> None:
        """See `StorageDriver.restore`."""
        # What was seen when nothing of an earlier attempt was left is what is gone by: only Cinder itself, which
        # refuses a snapshot that is not the newest, could look any later before it reverts.
        seen = self._mend(call, volume_id)
        volume, snapshot, strategy = self._choose(seen, snapshot_id)
        # At the instant: what a dead service is asked for can never be taken back.
        self._hosts.require([volume])
        LOG.info("task %s: volume %s goes back to %s by %s", call.operation_id, volume_id, snapshot_id, strategy)
        if strategy is Strategy.EXTENSION:
            with call.touching():
                self._act(call, self._api, volume_id, {EXTENSION: {"snapshot_id": snapshot_id}})
        else:
            self._begin_in_window(call, volume, snapshot, strategy)
        self._end(call, volume, snapshot)
        if strategy is Strategy.REIMAGE:
            self._reimaging.tidy(call, volume_id, snapshot_id)
        undone = self._undone_by(seen, snapshot)
        if undone is not None and self._allows_reimage:
            # Last: its image knows what the volume was before anything began.
            self._reimaging.tidy(call, volume_id, undone)

    def _undone_by(self, seen: _Seen, snapshot: Document) -> str | None:
        """The copy whose restore is rolled back, where the volume goes back to a safety copy."""
        safety = volumes.parse_name(snapshot)
        if safety is None or not self._is_safety(snapshot):
            return None
        for one in seen.snapshots:
            name = volumes.parse_name(one)
            if name is not None and (name.kind, name.snapshot_id) == (CopyKind.SNAPSHOT, safety.snapshot_id):
                return str(one["id"])
        return None

    def release(self, call: Call, volume_id: str) -> None:
        """Wait for what an earlier attempt began, and put right what Cinder has left of it."""
        self._mend(call, volume_id)

    def require_way(self, volume: Document) -> None:
        """Raises `NotSupported` if a snapshot of a volume could not be put back, not even the newest.

        Of a back end that does not show itself nothing is known, and nothing is said.
        """
        habits = self._backends.known(volume)
        if habits is None:
            return
        try:
            self._best(volume["id"], habits, encrypted=bool(volume.get("encrypted")))
        except NotSupported as reason:
            raise NotSupported(f"No snapshot is taken that could not be put back. {reason.message}") from None

    def problems(self) -> Iterator[Problem]:
        """The pools of which no snapshot could be put back."""
        try:
            pools = sorted(self._backends.by_pool().items())
        except StillframeError as error:
            yield Problem(f"nobody can tell what the back ends of Cinder do: {error.message}", "see that it answers")
            return
        for name, habits in pools:
            try:
                self._best(f"on {name}", habits, encrypted=False)
            except NotSupported:
                yield Problem(
                    f"volumes of the pool {name} cannot be put back, so that no snapshot of them is taken: its driver "
                    "is not trusted to revert by itself, and copying a snapshot over a volume will not do",
                    "if its driver does revert by itself, name the back end in [openstack] reverting_backends; if it "
                    "does not copy sparsely, set reimage = true",
                )

    def _best(self, volume_id: str, habits: Habits, *, encrypted: bool) -> Strategy:
        known = Circumstances(
            extension=False,
            newest=True,
            reverts=habits.reverts,
            encrypted=encrypted,
            sparse=habits.sparse,
            reimage=self._allows_reimage,
        )
        return choose(volume_id, known)

    def require_hosts(self, volume_ids: Sequence[str]) -> None:
        """Raises `Conflict` if a service that would have to put one of these volumes back does not live."""
        self._hosts.require(self._looking.volumes(volume_ids))

    def _mend(self, call: Call, volume_id: str) -> _Seen:
        """See `release`; returns what there is now."""
        if call.repeated:
            self._unanswered.suppose(volume_id)
        self._unanswered.let_pass(call, volume_id)
        try:
            seen = self._await(call, volume_id, lambda: volumes.snapshots_of(self._api, volume_id))
        except (TimedOut, ServiceDown) as why:
            LOG.warning("task %s: the revert of volume %s counts as lost: %s", call.operation_id, volume_id, why)
            seen = self._look(volume_id)
        return self._settle(call, seen)

    def _settle(self, call: Call, seen: _Seen) -> _Seen:
        """Put right what Cinder has left of a revert that has ended, or that counts as lost."""
        volume_id = seen.volume["id"]
        lost = [one for one in seen.snapshots if one["status"] == "restoring"]
        backups = self._backups(seen)
        stuck = seen.volume["attachments"] and seen.volume["status"] in ("available", "error", *BUSY)
        if not (lost or backups or stuck):
            return seen
        for snapshot in lost:
            action = {"os-reset_status": {"status": "available"}}
            with self._unanswered.noting(call, volume_id):
                self._api.act(f"/snapshots/{snapshot['id']}/action", action, call.request_id)
        for snapshot in backups:
            self._delete(call, seen.volume, snapshot["id"])
        if stuck:
            self._set_status(call, volume_id, "in-use")
        return self._look(volume_id)

    def _look(self, volume_id: str) -> _Seen:
        snapshots = volumes.snapshots_of(self._api, volume_id)
        return _Seen(self._looking.volume(volume_id), snapshots)

    def forget(self, call: Call, snapshot_id: str) -> None:
        """Remove what reimaging has left of a snapshot that is to be deleted."""
        if self._allows_reimage and not self._backends.extended():
            self._reimaging.forget(call, snapshot_id)

    def _begin_in_window(self, call: Call, volume: Document, snapshot: Document, strategy: Strategy) -> None:
        volume_id, snapshot_id = volume["id"], snapshot["id"]
        if strategy is Strategy.REIMAGE:
            self._reimaging.prepare(call, volume, snapshot_id)
        self._set_status(call, volume_id, "available")
        try:
            _require_untouched(volume, self._looking.volume(volume_id))
            if strategy is Strategy.REVERT:
                api = self._as_newest(volume, snapshot)
                with call.touching():
                    self._act(call, api, volume_id, {"revert": {"snapshot_id": snapshot_id}})
            else:
                action = self._reimaging.action(snapshot_id)
                with call.touching():
                    self._act(call, self._api, volume_id, action)
        except StillframeError:
            # Refused, or lost on its way: what it was before, unless it has begun after all.
            self._unanswered.let_pass(call, volume_id)
            if self._looking.volume(volume_id)["status"] == "available":
                self._set_status(call, volume_id, "in-use")
            raise

    def _end(self, call: Call, before: Document, snapshot: Document) -> None:
        owner = volumes.project_of(snapshot)
        try:
            volume = self._await(call, before["id"], lambda: self._looking.restoring(before["id"], owner)).volume
        except ServiceDown:
            # Nobody is at it any more, and whoever tries again does not have to wait for that once more.
            self._settle(call, self._look(before["id"]))
            raise
        failed = volume["status"] == "error"
        if not failed:
            # The look that saw the end is one at all that somebody could have done in the window, too.
            _require_untouched(before, volume)
        if volume["attachments"]:
            # A volume in error could not even be snapshot; that it is not whole is known to us, and it is fenced.
            self._set_status(call, before["id"], "in-use")
        if failed:
            raise BackendError(f"Cinder could not put volume {before['id']} back; the log of cinder-volume says why.")

    def _await(self, call: Call, volume_id: str, snapshots_of: Callable[[], list[Document]]) -> _Seen:
        """The volume once no revert of it runs; its status alone may have been overwritten since one began.

        It is looked at last: Cinder settles the snapshot after the volume, so this is the volume after the revert.
        Raises `ServiceDown`; `TimedOut` if its service has been at it for too long, whoever has waited for it until
        now; `MaybeQueued` if the service may not have come to it yet.
        """
        revert = self._hosts.revert(self._looking.volume(volume_id))

        def look() -> _Seen | None:
            snapshots = snapshots_of()
            if any(one["status"] == "restoring" for one in snapshots):
                return None
            volume = self._looking.volume(volume_id)
            return None if volume["status"] in BUSY else _Seen(volume, snapshots)

        what = f"volume {volume_id} to be put back"
        while True:
            left = max(0.0, self._times.timeout - revert.seconds)
            try:
                seen = self._waiting.until(call, left, what, look, revert.watch)
            except TimedOut:
                revert.require_begun()
                if revert.seconds >= self._times.timeout:
                    raise
            else:
                revert.end()
                return seen

    def _backups(self, seen: _Seen) -> list[Document]:
        """What Cinder keeps of a revert of ours that failed; as the newest it would be in the next one's way.

        Those that were there before our safety copies may be somebody's last good ones, and are not among them.
        """
        ours = [moment(one["created_at"]) for one in seen.snapshots if self._is_safety(one)]
        name = f"[revert] volume {seen.volume['id']} backup snapshot"
        kept = [one for one in seen.snapshots if one["name"] == name]
        return [one for one in kept if ours and moment(one["created_at"]) >= min(ours)]

    def _is_safety(self, snapshot: Document) -> bool:
        name = volumes.parse_name(snapshot)
        safety = name is not None and name.kind is CopyKind.SAFETY
        return safety and volumes.project_of(snapshot) == self._cloud.project_id()

    def _delete(self, call: Call, volume: Document, snapshot_id: str) -> None:
        try:
            self._api.act(f"/snapshots/{snapshot_id}/action", {"os-force_delete": {}}, call.request_id)
            self._waiting.until(
                call,
                self._times.timeout,
                f"snapshot {snapshot_id} to be deleted",
                lambda: volumes.get_snapshot(self._api, snapshot_id) and None,
                self._hosts.watch(volume),
            )
        except NotFound:
            return

    def _circumstances(self, seen: _Seen, snapshot: Document) -> Circumstances:
        volume = seen.volume
        extension, habits = self._backends.extended(), self._backends.habits(volume)
        return Circumstances(
            extension=extension,
            newest=extension or _is_newest(seen.snapshots, volume, snapshot),
            reverts=habits.reverts,
            encrypted=bool(volume.get("encrypted")),
            sparse=habits.sparse,
            reimage=self._allows_reimage,
        )

    def _as_newest(self, volume: Document, snapshot: Document) -> Api:
        """The identity for which the snapshot is the newest: its owner, or an administrator, who sees all."""
        owner = volumes.project_of(snapshot)
        return self._cloud.project(STORAGE, owner) if owner == volumes.project_of(volume) else self._api

    def _set_status(self, call: Call, volume_id: str, status: str) -> None:
        self._act(call, self._api, volume_id, {"os-reset_status": {"status": status}})

    def _act(self, call: Call, api: Api, volume_id: str, action: Mapping[str, Any]) -> None:
        with self._unanswered.noting(call, volume_id):
            api.act(f"/volumes/{volume_id}/action", action, call.request_id)


def _require_untouched(before: Document, after: Document) -> None:
    """Raises `BackendError` if somebody used the moment; the volume is then restored once more, or by hand."""
    seen = {"size": after["size"], "attachments": _attachments(after), "status": after["status"]}
    if seen != {"size": before["size"], "attachments": _attachments(before), "status": "available"}:
        raise BackendError(
            f"Volume {before['id']} was changed by somebody else while it was put back: {seen}. "
            "Retry the restore, or roll it back."
        )


def _is_newest(found: list[Document], volume: Document, snapshot: Document) -> bool:
    """Whether Cinder would revert to it: the newest of its project, or of all if another than the owner reverts."""
    owner = volumes.project_of(snapshot)
    rivals = [
        one
        for one in found
        if owner != volumes.project_of(volume) or volumes.project_of(one) == owner
        if one["id"] != snapshot["id"]
    ]
    # Of two of the same second nobody knows which Cinder takes.
    return all(moment(one["created_at"]) < moment(snapshot["created_at"]) for one in rivals)


def _attachments(volume: Document) -> list[str]:
    return sorted(attachment["attachment_id"] for attachment in volume["attachments"])
