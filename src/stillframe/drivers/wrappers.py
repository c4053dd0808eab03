"""Policy around drivers: each wrapper is a port, written out method by method, around a driver of that port."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import tenacity

from stillframe.domain.errors import Unavailable
from stillframe.domain.instance import Instance, PowerState, Volume
from stillframe.domain.snapshot import CopyName, CopyReference, VolumeSnapshot
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeCapabilities, ComputeDriver, Stillness
from stillframe.drivers.flashcopy import FlashCopy
from stillframe.drivers.storage import Cut, PreparedCut, StorageCapabilities, StorageDriver
from stillframe.drivers.visibility import Visibility

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Policy(Protocol):
    """What is done about the calls of a port."""

    def asking(self, what: str, ask: Callable[[], T]) -> T:
        """Around a call that works for no operation."""
        ...

    def working(self, what: str, call: Call, work: Callable[[], T]) -> T:
        """Around a call that works for an operation."""
        ...

    def hurrying(self, call: Call, work: Callable[[], T]) -> T:
        """Around a call that works while a guest is held still, who feels whatever is slow about it."""
        ...


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after which waits, something is tried again that was `Unavailable`; waits in seconds, with jitter.

    What is done while a guest is held still is never tried again by itself: a flow tries the whole cut again, with the
    guest let go in between.
    """

    attempts: int
    first_wait: float
    longest_wait: float

    def retrying(self, what: str, call: Call | None) -> tenacity.Retrying:
        """A tenacity object that tries again by this policy, as long as the call may go on."""

        def before_sleep(state: tenacity.RetryCallState) -> None:
            if call is not None:
                # Where the store does not answer either, the next try asks it again.
                with suppress(Unavailable):
                    call.check()
            problem = state.outcome.exception() if state.outcome else None
            LOG.warning("%s is unavailable, attempt %d of %d: %s", what, state.attempt_number, self.attempts, problem)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Unavailable),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_exponential_jitter(multiplier=self.first_wait, max=self.longest_wait),
            before_sleep=before_sleep,
            reraise=True,
        )

    def asking(self, what: str, ask: Callable[[], T]) -> T:
        """See `Policy`."""
        return self.retrying(what, None)(ask)

    def working(self, what: str, call: Call, work: Callable[[], T]) -> T:
        """See `Policy`."""
        return self.retrying(what, call)(work)

    def hurrying(self, call: Call, work: Callable[[], T]) -> T:  # noqa: ARG002  # see above
        """See `Policy`."""
        return work()


class CheckPolicy:
    """Let no call begin for an operation that may not go on."""

    def asking(self, _what: str, ask: Callable[[], T]) -> T:
        """See `Policy`."""
        return ask()

    def working(self, _what: str, call: Call, work: Callable[[], T]) -> T:
        """See `Policy`."""
        call.check()
        return work()

    def hurrying(self, call: Call, work: Callable[[], T]) -> T:
        """See `Policy`."""
        call.check()
        return work()


class LimitPolicy:
    """Let at most `concurrent` calls that work for an operation run at a time.

    Plain look-ups are not held up, nor is a cut: a guest would be held still while it waits for its place.
    """

    def __init__(self, concurrent: int) -> None:
        self._places = threading.BoundedSemaphore(concurrent)

    def asking(self, _what: str, ask: Callable[[], T]) -> T:
        """See `Policy`."""
        return ask()

    def working(self, _what: str, _call: Call, work: Callable[[], T]) -> T:
        """See `Policy`."""
        with self._places:
            return work()

    def hurrying(self, _call: Call, work: Callable[[], T]) -> T:
        """See `Policy`."""
        return work()


@dataclass(frozen=True, slots=True)
class ComputeUnder(ComputeDriver):
    """A compute driver under a policy."""

    driver: ComputeDriver
    policy: Policy

    @property
    def capabilities(self) -> ComputeCapabilities:
        return self.driver.capabilities

    def list_instances(self, project_id: str | None) -> Sequence[Instance]:
        return self.policy.asking("list_instances", lambda: self.driver.list_instances(project_id))

    def get_instance(self, instance_id: str) -> Instance:
        return self.policy.asking("get_instance", lambda: self.driver.get_instance(instance_id))

    def outlook(self, instance_id: str) -> Stillness:
        return self.policy.asking("outlook", lambda: self.driver.outlook(instance_id))

    def quiesced(self, call: Call, instance_id: str) -> AbstractContextManager[Stillness]:
        """As the driver; the policy is about the making of the context, and nothing within is tried again."""
        return self.policy.hurrying(call, lambda: self.driver.quiesced(call, instance_id))

    def release(self, instance_id: str) -> None:
        self.policy.asking("release", lambda: self.driver.release(instance_id))

    def check_power(self, instance_id: str, wanted: PowerState) -> None:
        self.policy.asking("check_power", lambda: self.driver.check_power(instance_id, wanted))

    def start(self, call: Call, instance_id: str) -> None:
        self.policy.working("start", call, lambda: self.driver.start(call, instance_id))

    def stop(self, call: Call, instance_id: str, graceful_seconds: float) -> None:
        self.policy.working("stop", call, lambda: self.driver.stop(call, instance_id, graceful_seconds))

    def hold(self, instance_id: str) -> tuple[PowerState, str | None]:
        return self.policy.asking("hold", lambda: self.driver.hold(instance_id))

    def fence(self, instance_id: str, owner: str) -> None:
        self.policy.asking("fence", lambda: self.driver.fence(instance_id, owner))

    def unfence(self, instance_id: str, owner: str) -> None:
        self.policy.asking("unfence", lambda: self.driver.unfence(instance_id, owner))

    def fenced_by(self, instance_id: str) -> str | None:
        return self.policy.asking("fenced_by", lambda: self.driver.fenced_by(instance_id))

    def fences(self) -> Mapping[str, str]:
        return self.policy.asking("fences", self.driver.fences)


@dataclass(frozen=True, slots=True)
class StorageUnder(StorageDriver):
    """A storage driver under a policy."""

    driver: StorageDriver
    policy: Policy

    @property
    def capabilities(self) -> StorageCapabilities:
        return self.driver.capabilities

    def list_volumes(self, project_id: str | None) -> Sequence[Volume]:
        return self.policy.asking("list_volumes", lambda: self.driver.list_volumes(project_id))

    def get_volume(self, volume_id: str) -> Volume:
        return self.policy.asking("get_volume", lambda: self.driver.get_volume(volume_id))

    def check_cut(self, instance: Instance, volume_ids: Sequence[str]) -> None:
        self.policy.asking("check_cut", lambda: self.driver.check_cut(instance, volume_ids))

    def simultaneous(self, instance: Instance, volume_ids: Sequence[str]) -> bool:
        return self.policy.asking("simultaneous", lambda: self.driver.simultaneous(instance, volume_ids))

    def prepare_cut(self, call: Call, instance: Instance, names: Sequence[CopyName]) -> PreparedCut | None:
        return self.policy.working("prepare_cut", call, lambda: self.driver.prepare_cut(call, instance, names))

    def cut(
        self, call: Call, instance: Instance, names: Sequence[CopyName], prepared: PreparedCut | None = None
    ) -> Cut:
        return self.policy.hurrying(call, lambda: self.driver.cut(call, instance, names, prepared))

    def complete(self, call: Call, copy: CopyReference) -> VolumeSnapshot:
        return self.policy.working("complete", call, lambda: self.driver.complete(call, copy))

    def find(
        self, snapshot_id: str | None, instance_id: str | None = None, project_id: str | None = None
    ) -> Sequence[VolumeSnapshot]:
        return self.policy.asking("find", lambda: self.driver.find(snapshot_id, instance_id, project_id))

    def check_restore(self, instance: Instance, copies: Mapping[str, str]) -> Mapping[str, str]:
        return self.policy.asking("check_restore", lambda: self.driver.check_restore(instance, copies))

    def restore(self, call: Call, instance: Instance, volume_id: str, copy_id: str) -> None:
        self.policy.working("restore", call, lambda: self.driver.restore(call, instance, volume_id, copy_id))

    def release(self, call: Call, volume_id: str) -> None:
        self.policy.working("release", call, lambda: self.driver.release(call, volume_id))

    def delete(self, call: Call, copy: CopyReference) -> None:
        self.policy.working("delete", call, lambda: self.driver.delete(call, copy))


@dataclass(frozen=True, slots=True)
class FlashCopyUnder(FlashCopy):
    """A driver's view of FlashCopy mappings under a policy."""

    driver: FlashCopy
    policy: Policy

    def mappings(self, volume_id: str, *, details: bool) -> Sequence[Mapping[str, str | None]]:
        return self.policy.asking("mappings", lambda: self.driver.mappings(volume_id, details=details))


@dataclass(frozen=True, slots=True)
class VisibilityUnder(Visibility):
    """What the owner of a token sees, under a policy."""

    driver: Visibility
    policy: Policy

    def list_instances(self, token: str, *, all_projects: bool) -> Sequence[Instance]:
        return self.policy.asking(
            "list_instances", lambda: self.driver.list_instances(token, all_projects=all_projects)
        )

    def get_instance(self, token: str, instance_id: str) -> Instance:
        return self.policy.asking("get_instance", lambda: self.driver.get_instance(token, instance_id))

    def list_volumes(self, token: str, *, all_projects: bool) -> Sequence[Volume]:
        return self.policy.asking("list_volumes", lambda: self.driver.list_volumes(token, all_projects=all_projects))

    def own_volumes(self, token: str) -> Collection[str]:
        return self.policy.asking("own_volumes", lambda: self.driver.own_volumes(token))

    def get_volume(self, token: str, volume_id: str) -> Volume:
        return self.policy.asking("get_volume", lambda: self.driver.get_volume(token, volume_id))
