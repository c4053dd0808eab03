"""What is in the cloud that is played, and what its hosts do with it."""

from __future__ import annotations

import itertools
import math
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

SERVICE_PROJECT: Final = "service"
SERVICE_USER: Final = "the-service"
TENANT: Final = "demo"
COMPUTE_HOST: Final = "compute-1"
VOLUME_HOST: Final = "storage@fast"
BOOT: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Peer:
    """A service behind a queue: `alive` is the truth, `state` what the others say of it, `queue` what waits for it.

    `seconds`: how long what it takes from its queue is `running`; `math.inf` is until `finish`. What is running where
    it dies is lost.
    """

    binary: str
    host: str
    alive: bool = True
    state: str = "up"
    status: str = "enabled"
    queue: list[Callable[[], None]] = field(default_factory=list)
    seconds: float = 0.0
    running: list[Callable[[], None]] = field(default_factory=list)
    #: What it does first when it is started.
    at_start: Callable[[], None] = lambda: None

    def cast(self, work: Callable[[], None]) -> None:
        """Have it done now, or when the peer comes back."""
        if not self.alive:
            self.queue.append(work)
        elif not self.seconds:
            work()
        else:
            self.running.append(work)
            if self.seconds < math.inf:
                threading.Timer(self.seconds, self._end, [work]).start()

    def die(self, *, seen: bool) -> None:
        """`seen`: the others have noticed."""
        self.alive = False
        self.running.clear()
        self.state = "down" if seen else self.state

    def come_back(self) -> None:
        """Take all that was queued."""
        self.alive, self.state = True, "up"
        self.at_start()
        while self.queue:
            self.cast(self.queue.pop(0))

    def finish(self) -> None:
        """Come to the end of all that it is at, and be quick from now on."""
        self.seconds = 0.0
        while self.running:
            self.running.pop(0)()

    def _end(self, work: Callable[[], None]) -> None:
        if work in self.running:
            self.running.remove(work)
            work()


@dataclass
class Server:
    """`flavor`: GiB of its own disks; `image`: what its root disk was made of, where that is no volume."""

    id: str
    volumes: list[str]
    status: str = "ACTIVE"
    task_state: str | None = None
    locked_reason: str | None = None
    locked: bool = False
    project_id: str = TENANT
    image: str = ""
    flavor: dict[str, int] = field(default_factory=lambda: {"disk": 0, "ephemeral": 0, "swap": 0})
    actions: list[tuple[str, str]] = field(default_factory=list)
    #: Of these, by their numbers, what nova-compute has come to the end of.
    finished: set[int] = field(default_factory=set)
    #: Whether the hypervisor holds the guest still, whatever the status.
    held: bool = False
    updated: str = "2026-01-01T00:00:00Z"
    #: What the hypervisor did to the guest.
    power: list[str] = field(default_factory=list)


@dataclass
class Volume:
    id: str
    content: str = ""
    status: str = "in-use"
    server_id: str | None = None
    size: int = 1
    bootable: str = "false"
    image_metadata: dict[str, str] = field(default_factory=dict)
    changed: datetime = BOOT


@dataclass
class Snapshot:
    id: str
    name: str
    description: str
    volume_id: str
    project_id: str
    content: str
    created: datetime
    status: str = "available"
    size: int = 1
    group_snapshot_id: str | None = None


@dataclass
class Image:
    id: str
    document: dict[str, Any]
    created: datetime


class Things:
    """Everything there is, and one lock for it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.compute = Peer("nova-compute", COMPUTE_HOST)
        self.storage = Peer("cinder-volume", VOLUME_HOST)
        self.servers: dict[str, Server] = {}
        self.volumes: dict[str, Volume] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.images: dict[str, Image] = {}
        self.capabilities: dict[str, Any] = {"volume_backend_name": "fast"}
        #: How many reverts and reimages fail at the back end.
        self.failures = 0
        #: Seconds that have gone by besides those that are counted.
        self.gone_by = 0
        self.compute.at_start = self._forget_pauses
        self._seconds = itertools.count()

    def now(self) -> datetime:
        """No two things are of the same second."""
        return BOOT + timedelta(seconds=self.gone_by + next(self._seconds))

    def add_server(self, volumes: int = 2, **more: Any) -> Server:
        server = Server(str(uuid.uuid4()), [], **more)
        self.servers[server.id] = server
        for _ in range(volumes):
            self.attach(server)
        return server

    def attach(self, server: Server) -> Volume:
        """A new volume of a server's."""
        volume = Volume(str(uuid.uuid4()), server_id=server.id, changed=self.now())
        self.volumes[volume.id] = volume
        server.volumes.append(volume.id)
        return volume

    def detach(self, server: Server, volume_id: str) -> None:
        server.volumes.remove(volume_id)
        volume = self.volumes[volume_id]
        volume.server_id, volume.status = None, "available"

    # What the peers do.

    def switch(self, server: Server, status: str, word: str) -> None:
        """Have nova-compute bring a server to a status, which is what it was asked for last."""
        number = len(server.actions) - 1

        def work() -> None:
            server.power.append(word)
            server.finished.add(number)
            server.held = word == "pause"
            # Where it has forgotten that the server was being paused, what it has done does not go on record.
            if word != "pause" or server.task_state is not None:
                server.status, server.task_state = status, None

        self.compute.cast(work)

    def _forget_pauses(self) -> None:
        """As nova-compute does at its start with servers whose guests run."""
        for server in self.servers.values():
            if server.task_state == "pausing" and not server.held:
                server.task_state = None

    def put_back(self, volume: Volume, snapshot: Snapshot, busy: str) -> None:
        """Have cinder-volume put a volume back; by the end of it, as by its beginning, it knows no other's statuses."""
        reverts = busy == "reverting"
        volume.status, volume.changed = busy, self.now()
        if reverts:
            snapshot.status = "restoring"

        def work() -> None:
            failed = self.failures > 0
            self.failures -= failed
            if not failed:
                volume.content = snapshot.content
            # Its end of a reimage overwrites whatever the volume is by then; its end of a revert does not.
            ours = volume.status == busy or not reverts
            if ours:
                volume.status = "error" if failed else "available"
            if (ours or failed) and snapshot.status == "restoring":
                snapshot.status = "available"

        self.storage.cast(work)

    def snap(self, volume: Volume, name: str, description: str, project_id: str) -> Snapshot:
        """Have cinder-volume cut a snapshot."""
        made = Snapshot(
            str(uuid.uuid4()), name, description, volume.id, project_id, volume.content, self.now(), "creating"
        )
        self.snapshots[made.id] = made

        def work() -> None:
            made.content, made.status = volume.content, "available"

        self.storage.cast(work)
        return made

    def drop(self, snapshot: Snapshot) -> None:
        """Have cinder-volume delete a snapshot."""
        snapshot.status = "deleting"

        def work() -> None:
            self.snapshots.pop(snapshot.id, None)

        self.storage.cast(work)
