"""The port to whatever runs instances.

Every method may be repeated after a crash or a lost reply with the same outcome. Besides the errors named, every method
may raise `Unavailable` (worth trying again) and `BackendError` (not).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from stillframe.domain.instance import Instance, PowerState
from stillframe.domain.snapshot import ConsistencyLevel
from stillframe.drivers.call import Call


@dataclass(frozen=True, slots=True)
class ComputeCapabilities:
    """What a compute driver can do; tests and flows ask this, never the driver's name.

    `power_control`: instances can be started and stopped through it. `quiesce`: the best level that `quiesced` reaches.
    """

    power_control: bool
    quiesce: ConsistencyLevel


def fenced_message(what: str, owner: str) -> str:
    """Why an instance, named by `what`, is not for anybody but the restore to the instance snapshot `owner`."""
    return (
        f"{what} is fenced for instance snapshot {owner} until its volumes are whole. Wait for that restore; if it has "
        "failed, retry it, roll it back, or delete that instance snapshot."
    )


@dataclass(frozen=True, slots=True)
class Stillness:
    """How still an instance is held, or can be: the level, and why it is no better, for whoever wants the snapshot.

    `reason` is one sentence without a full stop, None only for the best level that there is.
    """

    level: ConsistencyLevel
    reason: str | None = None


class ComputeDriver(Protocol):
    """Instances: looking at them, holding them still for a cut, and keeping them off during a restore."""

    @property
    def capabilities(self) -> ComputeCapabilities: ...

    def list_instances(self, project_id: str | None) -> Sequence[Instance]:
        """The instances of a project (None: of all), by name and id."""
        ...

    def get_instance(self, instance_id: str) -> Instance:
        """One instance with its present power state and attachments; raises `NotFound`."""
        ...

    def outlook(self, instance_id: str) -> Stillness:
        """The best that `quiesced` can be expected to reach at present; changes nothing and asks no guest.

        Raises `NotFound`, `Refused` where a means that the instance was declared with cannot be used, and `Conflict`
        where its volumes cannot be cut before something has been ended.
        """
        ...

    def quiesced(self, call: Call, instance_id: str) -> AbstractContextManager[Stillness]:
        """Hold the instance still while the context is open, and yield how still it is.

        An instance that is off is still already, and nothing is known of how it went off: it yields `CRASH`. A running
        one is frozen by its guest agent where there is one, then paused where that is possible; without either, or
        where it has one volume only, which needs neither, it yields `NONE`. Leaving the context always lets it run
        again, whatever happened inside; it raises `BackendError` if the guest did not stay still until then, for the
        cut made inside is then worth nothing. If the process dies, something that does not depend on it lets the guest
        run again within 2 seconds.
        """
        ...

    def release(self, instance_id: str) -> None:
        """Let the guest run again if a quiesce was left behind; does nothing otherwise."""
        ...

    def check_power(self, instance_id: str, wanted: PowerState) -> None:
        """Raise if it can be told beforehand that a start (`ACTIVE`) or stop (`SHUTOFF`) will fail.

        `NotSupported` for what can never be done, `Conflict` where something has to be ended or mended first.
        """
        ...

    def start(self, call: Call, instance_id: str) -> None:
        """Start the instance and return when it is active; nothing happens if it is. Raises `Refused` while fenced."""
        ...

    def stop(self, call: Call, instance_id: str, graceful_seconds: float) -> None:
        """Shut the instance down and return when it is off: gracefully, then hard after `graceful_seconds`."""
        ...

    def fence(self, instance_id: str, owner: str) -> None:
        """Let nobody start the instance until `unfence`; `owner` is an instance snapshot's id.

        Raises `Conflict` if another owner holds the fence. It survives a restart of everything.
        """
        ...

    def unfence(self, instance_id: str, owner: str) -> None:
        """Take the owner's fence away; nothing happens if it holds none or the instance is gone."""
        ...

    def fenced_by(self, instance_id: str) -> str | None:
        """The owner of the fence, or None."""
        ...

    def fences(self) -> Mapping[str, str]:
        """The owner of each fence that there is, by instance; it costs no more the more others there are without."""
        ...

    def hold(self, instance_id: str) -> tuple[PowerState, str | None]:
        """The power state and the owner of the fence, or None, of one look at both; raises `NotFound`."""
        ...
