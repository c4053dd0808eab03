"""The compute driver for QEMU processes on this machine."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stillframe.domain.errors import BackendError, Conflict, NotSupported, Refused, StillframeError, Unavailable
from stillframe.domain.instance import Instance, PowerState
from stillframe.domain.snapshot import ConsistencyLevel
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeCapabilities, Stillness, fenced_message
from stillframe.drivers.image_files.error_translation import translated
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.image_files.looking import same_file
from stillframe.drivers.qemu.commands import Paused, Qemu
from stillframe.drivers.qemu.declaration import Declaration, Declarations
from stillframe.drivers.qemu.guard import Guard
from stillframe.drivers.qemu.holding import LONGEST_HOLD, NO_AGENT, NO_HOOKS, Holding
from stillframe.drivers.qemu.power import NOT_PAUSED, power_state, run_state

LOG = logging.getLogger(__name__)

_CAPABILITIES: Final = ComputeCapabilities(power_control=True, quiesce=ConsistencyLevel.FILESYSTEM)
_POLL_SECONDS: Final = 0.1
_LOOKS_AT_A_TIME: Final = 16
# Whoever wants a list wants it soon; a monitor answers in milliseconds.
_LOOK_SECONDS: Final = 3.0
_NO_MONITOR: Final = "the instance runs and declares no monitor (qmp_socket), so that it cannot be held still"
_HELD: Final = frozenset({PowerState.PAUSED, PowerState.ERROR})


class QemuCompute:
    """Instances are declared files; `start_seconds` and `end_seconds` bound the waits for a process to come and go.

    `release_seconds` bounds the wait for a guest to be seen free, `hold_seconds` how long it is held at all, and
    `lock_seconds` the wait for another process that has to do with it.
    """

    def __init__(  # noqa: PLR0913 -- the composition root passes everything in
        self,
        instances: Path,
        state: Path,
        files: Files,
        qemu: Qemu,
        *,
        guard: Guard,
        start_seconds: float = 60.0,
        end_seconds: float = 30.0,
        release_seconds: float = 30.0,
        hold_seconds: float = LONGEST_HOLD,
        lock_seconds: float = 2.0,
    ) -> None:
        self._declarations = Declarations(instances)
        self._files = files
        self._qemu = qemu
        self.holding = Holding(
            *(state, files, qemu, guard),
            seconds=release_seconds,
            longest=hold_seconds,
            lock_seconds=lock_seconds,
        )
        self._fences = state / "fences"
        self._logs = state / "logs"
        self._start_seconds = start_seconds
        self._end_seconds = end_seconds

    @property
    def capabilities(self) -> ComputeCapabilities:
        return _CAPABILITIES

    def list_instances(self, project_id: str | None) -> Sequence[Instance]:
        """See `ComputeDriver`."""
        chosen = [one for one in self._declarations.all() if project_id in (None, one.project_id)]
        # A monitor that hangs is waited for, and must not be waited for after another one that hangs.
        with ThreadPoolExecutor(_LOOKS_AT_A_TIME, thread_name_prefix="look") as pool:
            return list(pool.map(self._shown, chosen))

    def get_instance(self, instance_id: str) -> Instance:
        """See `ComputeDriver`."""
        return self._instance(self._declarations.instance(instance_id))

    def outlook(self, instance_id: str) -> Stillness:
        """See `ComputeDriver`."""
        declaration = self._declarations.instance(instance_id)
        told = run_state(declaration, self._qemu)
        state = self._state(declaration)
        if state is PowerState.SHUTOFF or state in _HELD:
            return _still(state, told)
        if declaration.qmp_socket is None:
            return Stillness(ConsistencyLevel.NONE, _NO_MONITOR)
        self._require_monitor(declaration, declaration.qmp_socket)
        if declaration.guest_agent_socket is None:
            return Stillness(ConsistencyLevel.CRASH, NO_AGENT)
        return Stillness(ConsistencyLevel.FILESYSTEM, NO_HOOKS)

    @contextmanager
    def quiesced(self, call: Call, instance_id: str) -> Iterator[Stillness]:
        """See `ComputeDriver`."""
        declaration = self._declarations.instance(instance_id)
        told = run_state(declaration, self._qemu)
        state = self._state(declaration)
        if state is PowerState.SHUTOFF or state in _HELD:
            self._write_out(declaration)
            before = self._seen(declaration, state)
            yield _still(state, told)
            if self._seen(declaration, self._state(declaration)) != before:
                raise BackendError(
                    f"Instance '{declaration.name}' did not stay {state} while its disks were cut; repeat the cut."
                )
        elif declaration.qmp_socket is None:
            self._write_out(declaration)
            yield Stillness(ConsistencyLevel.NONE, _NO_MONITOR)
        else:
            self._require_monitor(declaration, declaration.qmp_socket)
            self._write_out(declaration)
            call.check()
            with self.holding.held(declaration, declaration.qmp_socket) as stillness:
                yield stillness

    def release(self, instance_id: str) -> None:
        """See `ComputeDriver`."""
        self.holding.release(self._declarations.instance(instance_id))

    def check_power(self, instance_id: str, wanted: PowerState) -> None:
        """See `ComputeDriver`."""
        declaration = self._declarations.instance(instance_id)
        if wanted is PowerState.ACTIVE:
            _start_command(declaration)
        elif wanted is PowerState.SHUTOFF:
            _monitor(declaration)
            run_state(declaration, self._qemu)

    def start(self, call: Call, instance_id: str) -> None:
        """See `ComputeDriver`."""
        declaration = self._declarations.instance(instance_id)
        owner = self.fenced_by(instance_id)
        if owner is not None:
            raise Refused(fenced_message(f"Instance '{declaration.name}'", owner))
        run_state(declaration, self._qemu)
        state = self._state(declaration)
        if state in _HELD and declaration.qmp_socket is not None:
            self._qemu.resume(declaration.qmp_socket)
        elif state is PowerState.SHUTOFF:
            command = _start_command(declaration)
            log = self._logs / f"{instance_id}.log"
            with translated("preparing the folder of the logs"):
                self._files.make_folder(self._logs)
            process = self._qemu.launch(command, log)

            def started() -> bool:
                if process.poll():
                    raise BackendError(
                        f"Instance '{declaration.name}' did not start: exit code {process.poll()}, see '{log}'."
                    )
                return self._state(declaration) is PowerState.ACTIVE

            if not self._wait(call, self._start_seconds, started):
                raise BackendError(
                    f"Instance '{declaration.name}' did not start in {self._start_seconds:g} s, see '{log}'."
                )

    def stop(self, call: Call, instance_id: str, graceful_seconds: float) -> None:
        """See `ComputeDriver`."""
        declaration = self._declarations.instance(instance_id)
        state = self._state(declaration)
        if state is PowerState.SHUTOFF:
            return
        socket = _monitor(declaration)
        run_state(declaration, self._qemu)
        self._require_own(declaration, socket)

        def off() -> bool:
            return self._state(declaration) is PowerState.SHUTOFF

        if state is PowerState.ACTIVE:
            self._ask_to_end(declaration, socket)
            # A guest that is off but whose process stays (-no-shutdown) has nothing more to lose.
            if self._wait(call, graceful_seconds, lambda: self._state(declaration) is not PowerState.ACTIVE) and off():
                return
        self._qemu.quit(socket)
        if not self._wait(call, self._end_seconds, off):
            raise BackendError(
                f"The QEMU process of '{declaration.name}' did not end within {self._end_seconds:g} s; end it by hand."
            )

    def fence(self, instance_id: str, owner: str) -> None:
        """See `ComputeDriver`."""
        self._declarations.instance(instance_id)
        with translated("fencing the instance"):
            self._files.make_folder(self._fences)
            try:
                self._files.write_new(self._fences / instance_id, owner.encode())
            except FileExistsError:
                holder = self.fenced_by(instance_id)
                if holder != owner:
                    raise Conflict(fenced_message(f"Instance {instance_id}", str(holder))) from None

    def unfence(self, instance_id: str, owner: str) -> None:
        """See `ComputeDriver`."""
        if self.fenced_by(instance_id) == owner:
            with translated("taking the fence away"):
                self._files.remove(self._fences / instance_id)
                self._files.sync(self._fences)

    def fenced_by(self, instance_id: str) -> str | None:
        """See `ComputeDriver`."""
        try:
            return (self._fences / instance_id).read_text()
        except FileNotFoundError:
            return None

    def fences(self) -> Mapping[str, str]:
        """See `ComputeDriver`."""
        # Those too whose instance is not declared any more, or not at present.
        with translated("looking at the fences"):
            names = [path.name for path in self._fences.iterdir()] if self._fences.is_dir() else []
        held = ((name, self.fenced_by(name)) for name in names if not name.startswith("."))
        return {instance_id: owner for instance_id, owner in held if owner is not None}

    def hold(self, instance_id: str) -> tuple[PowerState, str | None]:
        """See `ComputeDriver`."""
        return self.get_instance(instance_id).power_state, self.fenced_by(instance_id)

    def _ask_to_end(self, declaration: Declaration, socket: Path) -> None:
        if declaration.guest_agent_socket is not None:
            try:
                self._qemu.shut_guest_down(declaration.guest_agent_socket)
            except StillframeError as problem:
                LOG.info("no shutdown through the guest agent of '%s': %s", declaration.name, problem)
        try:
            self._qemu.power_down(socket)
        except StillframeError as problem:
            LOG.warning("no power button of '%s' could be pressed: %s", declaration.name, problem)

    def _require_monitor(self, declaration: Declaration, socket: Path) -> None:
        """Raises `Refused` for a monitor that is declared and cannot be used: nobody asked for less than it gives."""
        try:
            found = self._qemu.status(socket)
        except Unavailable as problem:
            LOG.warning("the monitor of '%s' cannot be used: %s", declaration.name, problem)
            found = None
        if found is None:
            raise Refused(
                f"Instance '{declaration.name}' runs, but the monitor that it declares (qmp_socket) cannot be used: "
                "nobody listens on it, or another client holds it; end that client, give QEMU another -qmp socket and "
                "declare that one, or declare none."
            )

    def _require_own(self, declaration: Declaration, socket: Path) -> None:
        """Raises `Refused` for the monitor of a process that has none of the disks: it is another instance's."""
        if not declaration.disks:
            return
        named = [node.file for node in self._qemu.nodes(socket)]
        # A relative name counts from the folder that the process was started in, which nobody here knows.
        if all(name.is_absolute() for name in named) and not any(
            name == disk.path or same_file(name, disk.file) for name in named for disk in declaration.disks
        ):
            raise Refused(
                f"The monitor that '{declaration.name}' declares (qmp_socket) belongs to a QEMU process that has none "
                "of its disks; correct qmp_socket, so that no other instance is switched off in its place."
            )

    def _seen(self, declaration: Declaration, state: PowerState) -> tuple[PowerState, Paused | None]:
        """What an instance that stands still is known by, so that it is noticed if it did not all the time."""
        socket = declaration.qmp_socket
        return state, None if socket is None or state not in _HELD else self._qemu.look(socket)

    def _write_out(self, declaration: Declaration) -> None:
        # What is written out before the pause need not be written during it.
        with translated("writing out the disks"):
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
        return power_state(declaration, self._qemu)

    def _shown(self, declaration: Declaration) -> Instance:
        """An instance for a list, which one that cannot be looked at must not keep from being made."""
        try:
            return self._instance(declaration, power_state(declaration, self._qemu, _LOOK_SECONDS))
        except StillframeError as problem:
            LOG.warning("whether '%s' runs is not known: %s", declaration.name, problem)
            return self._instance(declaration, PowerState.ERROR)

    def _instance(self, declaration: Declaration, state: PowerState | None = None) -> Instance:
        return Instance(
            id=declaration.id,
            project_id=declaration.project_id,
            name=declaration.name,
            power_state=state or self._state(declaration),
            attachments=declaration.attachments,
            host=platform.node(),
        )


def _still(state: PowerState, told: str | None) -> Stillness:
    how = f"is {state}" if told not in NOT_PAUSED else f"{NOT_PAUSED[told]} (run state {told})"
    return Stillness(
        ConsistencyLevel.CRASH,
        f"the instance {how}, so that no guest agent can be asked, and nothing is known of what its guest has "
        "not written yet",
    )


def _start_command(declaration: Declaration) -> Sequence[str]:
    if not declaration.start_command:
        raise NotSupported(
            f"Instance '{declaration.name}' has no start_command in its declaration; add one, or start it by hand."
        )
    return declaration.start_command


def _monitor(declaration: Declaration) -> Path:
    if declaration.qmp_socket is None:
        raise NotSupported(f"Instance '{declaration.name}' runs and has no qmp_socket; shut it down by hand.")
    return declaration.qmp_socket
