"""The compute driver for QEMU processes on this machine."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stillframe.domain.errors import BackendError, Conflict, NotSupported, Refused, StillframeError, Unavailable
from stillframe.domain.instance import Attachment, Instance, PowerState
from stillframe.domain.snapshot import ConsistencyLevel
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeCapabilities
from stillframe.drivers.local.border import border
from stillframe.drivers.local.declaration import Declaration, Declarations
from stillframe.drivers.local.files import Files
from stillframe.drivers.local.guard import Guard
from stillframe.drivers.local.images import Images
from stillframe.drivers.local.power import power_state
from stillframe.drivers.local.qemu import Qemu

LOG = logging.getLogger(__name__)

#: The folder in the state folder with a file for each instance that is held still.
MARKS: Final = "quiesced"

_CAPABILITIES: Final = ComputeCapabilities(power_control=True, quiesce=ConsistencyLevel.FILESYSTEM)
_POLL_SECONDS: Final = 0.1
_HELD: Final = frozenset({PowerState.PAUSED, PowerState.ERROR})


class LocalCompute:
    """Instances are declared files; `start_seconds` and `end_seconds` bound the waits for a process to come and go."""

    def __init__(  # noqa: PLR0913 -- the composition root passes everything in
        self,
        instances: Path,
        state: Path,
        files: Files,
        images: Images,
        qemu: Qemu,
        *,
        guard: Guard,
        start_seconds: float = 60.0,
        end_seconds: float = 30.0,
    ) -> None:
        self._declarations = Declarations(instances)
        self._files = files
        self._images = images
        self._qemu = qemu
        self._guard = guard
        self._fences = state / "fences"
        self._marks = state / MARKS
        self._logs = state / "logs"
        self._start_seconds = start_seconds
        self._end_seconds = end_seconds

    @property
    def capabilities(self) -> ComputeCapabilities:
        return _CAPABILITIES

    def list_instances(self, project_id: str | None) -> Sequence[Instance]:
        """See `ComputeDriver`."""
        return [self._instance(one) for one in self._declarations.all() if project_id in (None, one.project_id)]

    def get_instance(self, instance_id: str) -> Instance:
        """See `ComputeDriver`."""
        return self._instance(self._declarations.instance(instance_id))

    @contextmanager
    def quiesced(self, call: Call, instance_id: str) -> Iterator[ConsistencyLevel]:
        """See `ComputeDriver`."""
        declaration = self._declarations.instance(instance_id)
        state = self._state(declaration)
        if state is PowerState.SHUTOFF or state in _HELD:
            self._write_out(declaration)
            yield ConsistencyLevel.CRASH
            if self._state(declaration) is not state:
                raise BackendError(
                    f"'{declaration.name}' did not stay {state} while its disks were cut; repeat the cut"
                )
        elif declaration.qmp_socket is None or self._qemu.status(declaration.qmp_socket) is None:
            self._write_out(declaration)
            yield ConsistencyLevel.NONE
        else:
            self._write_out(declaration)
            call.check()
            with self._paused(declaration, declaration.qmp_socket) as level:
                yield level

    def release(self, instance_id: str) -> None:
        """See `ComputeDriver`."""
        mark = self._marks / instance_id
        if not mark.exists():
            return
        declaration = self._declarations.instance(instance_id)
        if declaration.qmp_socket is not None and self._qemu.status(declaration.qmp_socket) is not None:
            self._qemu.resume(declaration.qmp_socket)
            self._thaw(declaration)
        with border("releasing the instance"):
            self._files.remove(mark)

    def start(self, call: Call, instance_id: str) -> None:
        """See `ComputeDriver`."""
        declaration = self._declarations.instance(instance_id)
        owner = self.fenced_by(instance_id)
        if owner is not None:
            raise Refused(
                f"'{declaration.name}' is fenced by instance snapshot {owner} until its volumes are whole again"
            )
        state = self._state(declaration)
        if state in _HELD and declaration.qmp_socket is not None:
            self._qemu.resume(declaration.qmp_socket)
        elif state is PowerState.SHUTOFF:
            if not declaration.start_command:
                raise NotSupported(f"'{declaration.name}' has no start_command in its declaration")
            log = self._logs / f"{instance_id}.log"
            with border("preparing the folder of the logs"):
                self._files.make_folder(self._logs)
            process = self._qemu.launch(declaration.start_command, log)

            def started() -> bool:
                if process.poll():
                    raise BackendError(f"'{declaration.name}' did not start: exit code {process.poll()}, see {log}")
                return self._state(declaration) is PowerState.ACTIVE

            if not self._wait(call, self._start_seconds, started):
                raise BackendError(f"'{declaration.name}' did not start in {self._start_seconds:g} s, see {log}")

    def stop(self, call: Call, instance_id: str, graceful_seconds: float) -> None:
        """See `ComputeDriver`."""
        declaration = self._declarations.instance(instance_id)
        state = self._state(declaration)
        if state is PowerState.SHUTOFF:
            return
        socket = declaration.qmp_socket
        if socket is None:
            raise NotSupported(f"'{declaration.name}' runs and has no qmp_socket; shut it down by hand")

        def off() -> bool:
            return self._state(declaration) is PowerState.SHUTOFF

        if state is PowerState.ACTIVE:
            self._ask_to_end(declaration, socket)
            # A guest that is off but whose process stays (-no-shutdown) has nothing more to lose.
            if self._wait(call, graceful_seconds, lambda: self._state(declaration) is not PowerState.ACTIVE) and off():
                return
        self._qemu.quit(socket)
        if not self._wait(call, self._end_seconds, off):
            raise BackendError(f"the QEMU process of '{declaration.name}' did not end within {self._end_seconds:g} s")

    def fence(self, instance_id: str, owner: str) -> None:
        """See `ComputeDriver`."""
        self._declarations.instance(instance_id)
        with border("fencing the instance"):
            self._files.make_folder(self._fences)
            try:
                self._files.write_new(self._fences / instance_id, owner.encode())
            except FileExistsError:
                holder = self.fenced_by(instance_id)
                if holder != owner:
                    raise Conflict(f"instance {instance_id} is fenced by {holder}") from None

    def unfence(self, instance_id: str, owner: str) -> None:
        """See `ComputeDriver`."""
        if self.fenced_by(instance_id) == owner:
            with border("taking the fence away"):
                self._files.remove(self._fences / instance_id)
                self._files.sync(self._fences)

    def fenced_by(self, instance_id: str) -> str | None:
        """See `ComputeDriver`."""
        try:
            return (self._fences / instance_id).read_text()
        except FileNotFoundError:
            return None

    def hold(self, instance_id: str) -> tuple[PowerState, str | None]:
        """See `ComputeDriver`."""
        return self.get_instance(instance_id).power_state, self.fenced_by(instance_id)

    @contextmanager
    def _paused(self, declaration: Declaration, socket: Path) -> Iterator[ConsistencyLevel]:
        mark = self._marks / declaration.id
        with border("noting the pause"):
            self._files.make_folder(self._marks)
            self._files.write(mark, b"")
        self._guard.arm(declaration.id, socket, declaration.guest_agent_socket, mark)
        try:
            level = self._freeze(declaration)
            self._qemu.pause(socket)
            yield level
        finally:
            still = self._let_go(declaration, socket)
        if not still:
            raise BackendError(f"'{declaration.name}' did not stay paused while its disks were cut; repeat the cut")

    def _let_go(self, declaration: Declaration, socket: Path) -> bool:
        # If this fails the watchdog stays armed and the mark stays, for `release`.
        still = False
        try:
            still = self._qemu.resume(socket) == "paused"
        except Unavailable:
            # A process that has ended holds nobody, and must not be resumed when it is back.
            if self._qemu.status(socket) is not None:
                raise
        finally:
            self._thaw(declaration)
        self._guard.disarm(declaration.id)
        with border("noting the end of the pause"):
            self._files.remove(self._marks / declaration.id)
        return still

    def _freeze(self, declaration: Declaration) -> ConsistencyLevel:
        if declaration.guest_agent_socket is None:
            return ConsistencyLevel.CRASH
        try:
            frozen = self._qemu.freeze(declaration.guest_agent_socket)
        except (Unavailable, BackendError) as problem:
            LOG.warning("'%s' is cut without freezing its file systems: %s", declaration.name, problem)
            return ConsistencyLevel.CRASH
        # Whether any hooks of applications ran inside the guest cannot be known from here.
        return ConsistencyLevel.FILESYSTEM if frozen else ConsistencyLevel.CRASH

    def _thaw(self, declaration: Declaration) -> None:
        if declaration.guest_agent_socket is None:
            return
        try:
            self._qemu.thaw(declaration.guest_agent_socket)
        except (Unavailable, BackendError) as problem:
            LOG.warning("'%s' did not confirm that its file systems go on: %s", declaration.name, problem)

    def _ask_to_end(self, declaration: Declaration, socket: Path) -> None:
        if declaration.guest_agent_socket is not None:
            try:
                self._qemu.shut_guest_down(declaration.guest_agent_socket)
            except StillframeError as problem:
                LOG.info("no shutdown through the guest agent of '%s': %s", declaration.name, problem)
        self._qemu.power_down(socket)

    def _write_out(self, declaration: Declaration) -> None:
        # What is written out before the pause need not be written during it.
        with border("writing out the disks"):
            for disk in declaration.disks:
                self._files.write_out(disk.file)

    def _wait(self, call: Call, seconds: float, reached: Callable[[], bool]) -> bool:
        end = time.monotonic() + seconds
        while not reached():
            call.check()
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _state(self, declaration: Declaration) -> PowerState:
        return power_state(declaration, self._images, self._qemu)

    def _instance(self, declaration: Declaration) -> Instance:
        return Instance(
            id=declaration.id,
            project_id=declaration.project_id,
            name=declaration.name,
            power_state=self._state(declaration),
            attachments=tuple(
                Attachment(declaration.volume_id(disk), disk.name, bootable=disk.bootable or number == 0)
                for number, disk in enumerate(declaration.attached)
            ),
            host=platform.node(),
        )
