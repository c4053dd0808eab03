"""The compute driver for Nova."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from stillframe.domain.errors import BackendError, Conflict, NotFound, Refused
from stillframe.domain.instance import Instance, PowerState
from stillframe.domain.snapshot import ConsistencyLevel
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeCapabilities, Stillness, fenced_message
from stillframe.drivers.openstack import documents
from stillframe.drivers.openstack.batching import Batching
from stillframe.drivers.openstack.cloud import Api, Cloud
from stillframe.drivers.openstack.hosts import Hosts
from stillframe.drivers.openstack.pausing import Pausing
from stillframe.drivers.openstack.servers import (
    REASON,
    TO_STOP,
    can_be_paused,
    fence_owner,
    get_server,
    is_settled,
    is_still,
    list_servers,
    power_state,
    unsettled,
    what_first,
    why_not_paused,
)
from stillframe.drivers.openstack.waiting import TimedOut, Waiting

LOG = logging.getLogger(__name__)

_COMPUTE: Final = "compute"
# What brings a server nearer to running, by its status.
_TO_START: Final[Mapping[str, Mapping[str, Any]]] = {
    "SHUTOFF": {"os-start": None},
    "PAUSED": {"unpause": None},
    "SUSPENDED": {"resume": None},
    "ERROR": {"reboot": {"type": "HARD"}},
}
# Its volumes are not attached.
_WITHOUT_VOLUMES: Final = ("SHELVED", "SHELVED_OFFLOADED", "SOFT_DELETED", "DELETED", "BUILD")
_STILLNESS: Final = Stillness(
    ConsistencyLevel.CRASH, "Nova can hold a server still, but has no way to freeze its guest's file systems"
)
_NO_PAUSE: Final = "servers are not paused for a snapshot ([openstack] quiesce)"
#: So long, beyond the time that a guest is given, Nova may take to start or stop a server.
TIMEOUT: Final = 120.0
_LOOK_AGAIN_SECONDS: Final = 15.0
_STOPPING: Final = "powering-off"


class NovaCompute:
    """Servers, looked at and switched by the service's user.

    The fence is Nova's lock: made by an administrator of another project, the owner can neither take it away nor start,
    stop, rebuild, delete or detach anything under it. Its reason names the instance snapshot.

    `pauses`: whether a running server is paused while its volumes are cut. Nova has no way to freeze a guest's file
    systems but within its own createImage.
    """

    def __init__(
        self, cloud: Cloud, waiting: Waiting, pausing: Pausing, *, pauses: bool, timeout: float = TIMEOUT
    ) -> None:
        self._timeout = timeout
        self._cloud = cloud
        self._waiting = waiting
        # Nova cannot be asked for several servers by their ids; all volumes of one server are put back at a time.
        self._looking = Batching(self._server, lambda _several: {})
        self._pausing = pausing
        self._pauses = pauses
        self._hosts = Hosts(cloud)

    @property
    def capabilities(self) -> ComputeCapabilities:
        quiesce = ConsistencyLevel.CRASH if self._pauses else ConsistencyLevel.NONE
        return ComputeCapabilities(power_control=True, quiesce=quiesce)

    @property
    def _api(self) -> Api:
        return self._cloud.service(_COMPUTE)

    def list_instances(self, project_id: str | None) -> Sequence[Instance]:
        """See `ComputeDriver`."""
        query = {"all_tenants": "1"} | ({} if project_id is None else {"project_id": project_id})
        return list_servers(self._api, **query)

    def get_instance(self, instance_id: str) -> Instance:
        """See `ComputeDriver`."""
        return get_server(self._api, instance_id)

    def outlook(self, instance_id: str) -> Stillness:
        """See `ComputeDriver`."""
        server = self._server(instance_id)
        if server["status"] in _WITHOUT_VOLUMES:
            raise Conflict(f"Server {instance_id} is {server['status']}: {what_first(server)}.")
        if is_still(server):
            return _STILLNESS
        if not self._pauses:
            return Stillness(ConsistencyLevel.NONE, _NO_PAUSE)
        return _STILLNESS if can_be_paused(server) else Stillness(ConsistencyLevel.NONE, why_not_paused(server))

    @contextmanager
    def quiesced(self, call: Call, instance_id: str) -> Iterator[Stillness]:
        """See `ComputeDriver`: a server that is off, paused or suspended is still, another one is paused if wished."""
        server = self._server(instance_id)
        if is_still(server):
            before = self._pausing.history(instance_id)
            yield _STILLNESS
            if (
                not is_settled(self._server(instance_id), server["status"])
                or self._pausing.history(instance_id) != before
            ):
                raise BackendError(
                    f"Server {instance_id} did not stay {server['status']} while its volumes were cut; repeat the cut."
                )
        elif self._pauses and can_be_paused(server):
            obstacle = self._hosts.obstacle(server)
            if obstacle is not None:
                why = f"the nova-compute of the server's host {obstacle}, so that the server was not paused"
                yield Stillness(ConsistencyLevel.NONE, why)
                return
            with self._pausing.paused(call, instance_id) as held:
                yield _STILLNESS if held else Stillness(ConsistencyLevel.NONE, "Nova could not pause the server")
        else:
            yield Stillness(ConsistencyLevel.NONE, why_not_paused(server) if self._pauses else _NO_PAUSE)

    def release(self, instance_id: str) -> None:
        """See `ComputeDriver`: also where servers are no longer paused since the settings were changed."""
        self._pausing.let_run(instance_id)

    def check_power(self, instance_id: str, wanted: PowerState) -> None:
        """See `ComputeDriver`; for one that is being stopped already nothing more is asked of its host."""
        if wanted is not PowerState.SHUTOFF:
            return
        server = self._server(instance_id)
        if server["OS-EXT-STS:task_state"] == _STOPPING or is_settled(server, "SHUTOFF"):
            return
        obstacle = unsettled(server)
        if obstacle is not None:
            raise Conflict(obstacle)
        self._hosts.require(server)

    def start(self, call: Call, instance_id: str) -> None:
        """See `ComputeDriver`; a server in ERROR is rebooted hard, which repairs what can be repaired."""
        owner = self.fenced_by(instance_id)
        if owner is not None:
            raise Refused(fenced_message(f"Server {instance_id}", owner))
        self._switch(call, instance_id, "ACTIVE", _TO_START, self._timeout)

    def stop(self, call: Call, instance_id: str, graceful_seconds: float) -> None:
        """See `ComputeDriver`; how long the guest itself is waited for is a setting of Nova's, too."""
        self._switch(call, instance_id, "SHUTOFF", TO_STOP, graceful_seconds + self._timeout)

    def fence(self, instance_id: str, owner: str) -> None:
        """See `ComputeDriver`."""
        server = self._server(instance_id)
        holder = fence_owner(server)
        if server["tenant_id"] == self._cloud.project_id():
            raise Refused(
                f"Server {instance_id} is of the service's own project, whose users could undo its lock; give the "
                "service's user a project of its own."
            )
        if holder not in (None, owner):
            raise Conflict(fenced_message(f"Server {instance_id}", holder))
        if holder is None and server["locked"]:
            raise Conflict(f"Server {instance_id} is locked ({server['locked_reason']}); unlock it first.")
        # Made again where it is there already: with the same words it may be the owner's own, which holds nobody.
        self._act(instance_id, {"lock": {"locked_reason": REASON + owner}})
        if fence_owner(self._server(instance_id)) != owner:
            raise Conflict(f"Server {instance_id} was locked by somebody else at the same time; unlock it first.")

    def unfence(self, instance_id: str, owner: str) -> None:
        """See `ComputeDriver`."""
        try:
            if fence_owner(self._server(instance_id)) == owner:
                self._act(instance_id, {"unlock": None})
        except NotFound:
            return

    def fenced_by(self, instance_id: str) -> str | None:
        """See `ComputeDriver`."""
        try:
            return fence_owner(self._server(instance_id))
        except NotFound:
            return None

    def fences(self) -> Mapping[str, str]:
        """See `ComputeDriver`: of the locked servers, whose list tells the reasons."""
        locked = self._api.pages("/servers/detail", documents.SERVERS, all_tenants="1", locked="true")
        held = ((server["id"], fence_owner(server)) for server in locked)
        return {server_id: owner for server_id, owner in held if owner is not None}

    def hold(self, instance_id: str) -> tuple[PowerState, str | None]:
        """See `ComputeDriver`."""
        server = self._looking.ask(instance_id)[0]
        return power_state(server), fence_owner(server)

    def _server(self, instance_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._api.get(f"/servers/{instance_id}", documents.SERVER)
        return found

    def _act(self, instance_id: str, action: Mapping[str, Any], request_id: str | None = None) -> None:
        self._api.act(f"/servers/{instance_id}/action", action, request_id)

    def _switch(
        self, call: Call, instance_id: str, wanted: str, ways: Mapping[str, Mapping[str, Any]], seconds: float
    ) -> None:
        """Bring a server to the wanted status, or raise; a stop that waits for a dead host is waited for with it."""
        while True:
            switching = _Switching(self._api, self._hosts, call, instance_id, wanted, ways, seconds)
            try:
                self._waiting.until(call, seconds, f"server {instance_id} to be {wanted}", switching.step)
            except TimedOut:
                server = self._server(instance_id)
                if server["OS-EXT-STS:task_state"] != _STOPPING or wanted != "SHUTOFF":
                    raise
                obstacle = self._hosts.obstacle(server)
                if obstacle is None:
                    raise
                LOG.warning(
                    "task %s: server %s is to be stopped, and the nova-compute of its host %s; waiting for that, for "
                    "the stop is queued and cannot be taken back",
                    *(call.operation_id, instance_id, obstacle),
                )
            else:
                return


class _Switching:
    """Asks for the next step to the wanted status whenever the server has nothing to do.

    A task that neither ends nor fails was lost on its way to nova-compute; an administrator's reset ends it.
    """

    def __init__(
        self,
        api: Api,
        hosts: Hosts,
        call: Call,
        instance_id: str,
        wanted: str,
        ways: Mapping[str, Mapping[str, Any]],
        seconds: float,
    ) -> None:
        self._api, self._hosts, self._call = api, hosts, call
        self._id, self._wanted, self._ways = instance_id, wanted, ways
        self._reset_at = time.monotonic() + seconds / 2
        self._was_reset = False
        self._asked: list[str] = []

    def step(self) -> bool | None:
        """Whether it is there; see `Waiting.until`."""
        server = self._api.get(f"/servers/{self._id}", documents.SERVER)
        status = server["status"]
        if server["OS-EXT-STS:task_state"] is not None:
            if not self._was_reset and time.monotonic() > self._reset_at:
                self._reset(server)
            return None
        if status == self._wanted:
            return True
        if status not in self._ways:
            raise Conflict(unsettled(server) or f"Server {self._id} is {status}; wait until Nova is done with that.")
        if status == "ERROR" and "ERROR" in self._asked:
            fault = server.get("fault", {}).get("message", "Nova does not say why")
            raise BackendError(f"Server {self._id} is in ERROR: {fault}")
        # At the instant: what a dead host is asked for can never be taken back.
        self._require_host(server)
        self._asked.append(status)
        # Its status may have changed since it was looked at.
        with suppress(Conflict):
            self._act(self._ways[status])
        return None

    def _require_host(self, server: Mapping[str, Any]) -> None:
        try:
            self._hosts.require(server)
        except Conflict as refusal:
            if self._wanted != "ACTIVE":
                raise
            told = Conflict(f"{refusal.message} It was not started: openstack server start {self._id}")
            told.detail = refusal.detail
            raise told from None

    def _reset(self, server: Mapping[str, Any]) -> None:
        if self._hosts.obstacle(server) is not None:
            if self._wanted == "ACTIVE":
                self._require_host(server)
            # It is queued, not lost.
            self._reset_at = time.monotonic() + _LOOK_AGAIN_SECONDS
            return
        LOG.warning("task %s: server %s hangs; it is reset", self._call.operation_id, self._id)
        self._was_reset = True
        self._act({"os-resetState": {"state": "active" if "ACTIVE" in self._ways else "error"}})

    def _act(self, action: Mapping[str, Any]) -> None:
        self._api.act(f"/servers/{self._id}/action", action, self._call.request_id)
