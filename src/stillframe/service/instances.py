"""Use cases around instances and their volumes: looking at them, and starting and stopping where no Nova does it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from stillframe.domain.errors import Conflict, NotFound, NotSupported
from stillframe.domain.instance import Instance, PowerState, Volume
from stillframe.drivers.compute import ComputeDriver
from stillframe.drivers.flashcopy import FlashCopy
from stillframe.drivers.storage import StorageDriver
from stillframe.drivers.visibility import Visibility
from stillframe.service.caller import Caller
from stillframe.service.policy import Policy
from stillframe.service.power import PowerAction, PowerActions
from stillframe.store.operations import OperationStore

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InstanceService:
    """Instances and volumes as the caller may see them; what another project owns is not there.

    Where the platform has users of its own (`visibility`), it is asked with the caller's token; else the owner's
    project decides.
    """

    compute: ComputeDriver
    storage: StorageDriver
    operations: OperationStore
    policy: Policy
    power: PowerActions
    flashcopy: FlashCopy | None = None
    visibility: Visibility | None = None
    count_hosts: bool = False
    count_backends: bool = False

    def list_instances(self, caller: Caller, *, all_projects: bool = False) -> Sequence[Instance]:
        project_id = self._project_seen(caller, "instance:show", all_projects=all_projects)
        if self.visibility is not None and caller.token is not None:
            return self.visibility.list_instances(caller.token, all_projects=all_projects)
        return self.compute.list_instances(project_id)

    def get_instance(self, caller: Caller, instance_id: str, rule: str = "instance:show") -> Instance:
        """One instance visible to the caller; raises `NotFound`, or `Forbidden` by `rule`."""
        if self.visibility is not None and caller.token is not None:
            instance = self.visibility.get_instance(caller.token, instance_id)
        else:
            with _in_one_wording("Instance", instance_id):
                instance = self.compute.get_instance(instance_id)
        if not self.policy.allows(caller, "admin", instance.project_id) and instance.project_id != caller.project_id:
            raise _absent("Instance", instance_id)
        self.policy.require(caller, rule, instance.project_id)
        return instance

    def list_volumes(self, caller: Caller, *, all_projects: bool = False) -> Sequence[Volume]:
        project_id = self._project_seen(caller, "volume:show", all_projects=all_projects)
        if self.visibility is not None and caller.token is not None:
            return self.visibility.list_volumes(caller.token, all_projects=all_projects)
        return self.storage.list_volumes(project_id)

    def get_volume(self, caller: Caller, volume_id: str, rule: str = "volume:show") -> Volume:
        """One volume visible to the caller; raises `NotFound`, or `Forbidden` by `rule`."""
        if self.visibility is not None and caller.token is not None:
            volume = self.visibility.get_volume(caller.token, volume_id)
        else:
            with _in_one_wording("Volume", volume_id):
                volume = self.storage.get_volume(volume_id)
        if not self.policy.allows(caller, "admin", volume.project_id) and volume.project_id != caller.project_id:
            raise _absent("Volume", volume_id)
        self.policy.require(caller, rule, volume.project_id)
        return volume

    def require_volumes(self, caller: Caller, volume_ids: Collection[str]) -> None:
        """Raises `NotFound` if an instance that the caller sees has volumes that the caller does not see.

        Only a platform that decides about each by itself can have such.
        """
        seen: Collection[str] = ()
        if self.visibility is not None and caller.token is not None and len(volume_ids) > 1:
            self.policy.require(caller, "volume:show", caller.project_id)
            seen = self.visibility.own_volumes(caller.token)
        if self.visibility is not None:
            for volume_id in volume_ids:
                if volume_id not in seen:
                    self.get_volume(caller, volume_id)

    def limit_keys(self, instance_id: str | None, volume_ids: Collection[str]) -> tuple[str, ...]:
        """What limits of concurrency count an operation by, besides its project; asked for only where there are some.

        What is gone is nowhere.
        """
        found: set[str] = set()
        if self.count_hosts and instance_id is not None:
            with suppress(NotFound):
                found.add(f"host:{self.compute.get_instance(instance_id).host}")
        for volume_id in volume_ids if self.count_backends else ():
            with suppress(NotFound):
                found.add(f"backend:{self.storage.get_volume(volume_id).backend}")
        return tuple(sorted(found - {"host:None", "backend:None"}))

    def require_unlocked(self, instance: Instance) -> None:
        """Raises `Conflict` for an instance that its users have locked: a lock of ours would take the place of it."""
        if instance.locked:
            raise Conflict(f"Instance {instance.id} is locked; unlock it first.")

    def require_no_switching(self, instance: Instance, verb: str) -> None:
        """Raises `Conflict` for an instance that is being started or stopped through this service."""
        self.power.require_none(instance.id, verb)

    def task_state(self, instance_id: str) -> str | None:
        """What is being done with an instance, as Nova calls it (`powering-on`, `powering-off`), or None."""
        return self.power.task_state(instance_id)

    def task_states(self) -> Callable[[str], str | None]:
        """Tells of any instance what is being done with it at this moment, as `task_state` does."""
        return self.power.task_states()

    def start(self, caller: Caller, instance_id: str) -> None:
        """Accept that an instance is started; raises `Conflict` if it is busy or fenced, or if it is not off."""
        self._switch(caller, instance_id, PowerAction.START, PowerState.SHUTOFF)

    def stop(self, caller: Caller, instance_id: str) -> None:
        """Accept that an instance is shut down, gracefully, then hard; raises `Conflict` as `start`, or if it is off.

        One that is paused is refused as well, as Nova does.
        """
        self._switch(caller, instance_id, PowerAction.STOP, PowerState.ACTIVE, PowerState.ERROR)

    def _switch(self, caller: Caller, instance_id: str, action: PowerAction, *allowed: PowerState) -> None:
        self.get_instance(caller, instance_id, "instance:power")
        self._require_power_control()

        def check() -> None:
            fence = self.operations.fence(instance_id)
            if fence is not None and action is PowerAction.START:
                raise Conflict(
                    f"Instance {instance_id} is fenced until the restore to instance snapshot {fence.snapshot_id} has "
                    "made its volumes whole: wait for its end, or retry it, roll it back, or delete that instance "
                    "snapshot."
                )
            self.operations.require_free(instance_id)
            # Looked at anew: whoever switched it before may have come to the end of it meanwhile.
            _require_state(self.compute.get_instance(instance_id), action.name.lower(), allowed)
            self.compute.check_power(instance_id, action.wanted)

        self.power.begin(action, instance_id, caller.request_id, check)

    def flashcopy_mappings(
        self, caller: Caller, volume_id: str, *, details: bool
    ) -> Sequence[Mapping[str, str | None]]:
        """The FlashCopy mappings of a volume; raises `NotSupported` for volumes of other back ends."""
        self.get_volume(caller, volume_id, "volume:flashcopy")
        if self.flashcopy is None:
            raise NotSupported(
                f"Volume {volume_id} is not on IBM Storage Virtualize (Storwize, SVC, FlashSystem); "
                "only such volumes have FlashCopy mappings."
            )
        return self.flashcopy.mappings(volume_id, details=details)

    def _project_seen(self, caller: Caller, rule: str, *, all_projects: bool) -> str | None:
        self.policy.require(caller, rule, caller.project_id)
        if all_projects:
            self.policy.require(caller, "admin", caller.project_id)
            return None
        return caller.project_id

    def _require_power_control(self) -> None:
        if self.visibility is not None or not self.compute.capabilities.power_control:
            raise NotSupported(
                "Instances of this platform are not started and stopped through this service; use the platform."
            )


def _absent(kind: str, thing_id: str) -> NotFound:
    return NotFound(f"{kind} {thing_id} could not be found.")


@contextmanager
def _in_one_wording(kind: str, thing_id: str) -> Iterator[None]:
    """What nobody has is told as what another project has: else the words would tell which it is."""
    try:
        yield
    except NotFound as error:
        LOG.info("%s", error.message)
        raise _absent(kind, thing_id) from None


def _require_state(instance: Instance, verb: str, allowed: Collection[PowerState]) -> None:
    if instance.power_state not in allowed:
        # In Nova's words, which its clients look for.
        vm_state = "stopped" if instance.power_state is PowerState.SHUTOFF else instance.power_state.value
        raise Conflict(f"Cannot '{verb}' instance {instance.id} while it is in vm_state {vm_state}")
