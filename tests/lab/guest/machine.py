"""The guest as a QEMU process."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from tests.lab.guest.disks import Disks, format_of
from tests.lab.guest.monitor import MonitorError, ask_agent, ask_monitor, tell_agent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.guest.image import Image

BOOT_SECONDS: Final = 120.0
SERIALS: Final = ("order-a", "order-b", "files")
_COMMON: Final = (
    *("-machine", "q35", "-accel", "tcg", "-m", "192M", "-smp", "1"),
    *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
)


@dataclass(frozen=True)
class Guest:
    """One guest whose files (sockets, console, process id) lie in `directory`, which needs a short path.

    It may be started here or by anybody else with `command`: everything here goes by the files. `monitor` is for the
    service, `control` is the same monitor for the test. `order_rate` and `files_rate` are in records a second, 0 for as
    fast as it goes.
    """

    image: Image
    directory: Path
    disks: Disks
    agent: bool = True
    order_rate: int = 0
    files_rate: int = 0
    writers: bool = True
    prefix: tuple[str, ...] = field(default=())

    @property
    def monitor_socket(self) -> Path:
        return self.directory / "monitor"

    @property
    def control_socket(self) -> Path:
        return self.directory / "control"

    @property
    def agent_socket(self) -> Path:
        return self.directory / "agent"

    @property
    def console_file(self) -> Path:
        return self.directory / "console"

    @property
    def process_file(self) -> Path:
        return self.directory / "pid"

    @property
    def command(self) -> list[str]:
        """What starts the guest, in the foreground of whoever starts it."""
        append = (
            f"console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off random.trust_cpu=on tsc=reliable"
            f" ORDER_RATE={self.order_rate} FILES_RATE={self.files_rate} WRITERS={'on' if self.writers else 'off'}"
        )
        command = [*self.prefix, "qemu-system-x86_64", "-name", self.directory.name, *_COMMON]
        command += ["-kernel", str(self.image.kernel), "-initrd", str(self.image.initramfs), "-append", append]
        command += ["-pidfile", str(self.process_file)]
        command += ["-chardev", f"file,id=console,path={self.console_file},append=on", "-serial", "chardev:console"]
        for name, path in (("monitor", self.monitor_socket), ("control", self.control_socket)):
            command += ["-chardev", f"socket,id={name},path={path},server=on,wait=off"]
            command += ["-mon", f"chardev={name},mode=control"]
        if self.agent:
            command += ["-device", "virtio-serial-pci"]
            command += ["-chardev", f"socket,id=agent,path={self.agent_socket},server=on,wait=off"]
            command += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        for number, (path, serial) in enumerate(zip(self.disks.paths, SERIALS, strict=True)):
            command += ["-blockdev", _block_device(number, path)]
            command += ["-device", f"virtio-blk-pci,drive=disk{number},serial={serial}"]
        return command

    def start(self) -> None:
        """Start it and return when it is up."""
        self.directory.mkdir(parents=True, exist_ok=True)
        boots = self.boots
        with (self.directory / "qemu.log").open("ab") as log:
            process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.wait_until_up(boots + 1, process)

    def wait_until_up(self, boots: int, process: subprocess.Popen[bytes] | None = None) -> None:
        """Return when it has come up for that many times in all, and its agent answers."""

        def up() -> bool:
            if process is not None and process.poll() is not None:
                raise RuntimeError(f"QEMU ended: {(self.directory / 'qemu.log').read_text()}")
            return self.boots >= boots and (not self.agent or self.agent_answers())

        wait_for(up, BOOT_SECONDS, lambda: f"the guest does not come up; its console ends with {self.console[-600:]!r}")

    def shut_down(self, seconds: float = 30.0) -> None:
        """Press the power button, and after some seconds pull the plug."""
        with self._process() as process:
            if process is not None:
                with suppress(OSError, MonitorError):
                    self.control("system_powerdown")
                if not _ended(process, seconds):
                    self.kill()

    def kill(self) -> None:
        """End it, and return when nothing has its disks open any more."""
        with self._process() as process:
            if process is not None:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                if not _ended(process, 30.0):
                    raise TimeoutError("the guest's process does not end")

    @contextmanager
    def _process(self) -> Iterator[int | None]:
        """A handle that keeps standing for the process that runs now, also while the process ends."""
        process_id = self.process_id
        try:
            process = None if process_id is None else os.pidfd_open(process_id)
        except ProcessLookupError:
            process = None
        try:
            yield process
        finally:
            if process is not None:
                os.close(process)

    @property
    def process_id(self) -> int | None:
        """The process that runs the guest now, no matter who started it."""
        try:
            process_id = int(self.process_file.read_text())
            with suppress(ChildProcessError):
                os.waitpid(process_id, os.WNOHANG)
            arguments = Path(f"/proc/{process_id}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return process_id if str(self.process_file).encode() in arguments.split(b"\0") else None

    @property
    def running(self) -> bool:
        return self.process_id is not None

    def control(self, command: str, **arguments: Any) -> Any:
        return ask_monitor(self.control_socket, command, **arguments)

    def ask_agent(self, command: str, **arguments: Any) -> Any:
        return ask_agent(self.agent_socket, command, **arguments)

    def tell_agent(self, command: str, **arguments: Any) -> None:
        tell_agent(self.agent_socket, command, **arguments)

    def agent_answers(self) -> bool:
        try:
            ask_agent(self.agent_socket, "guest-ping", timeout=3.0)
        except (OSError, MonitorError):
            return False
        return True

    @property
    def status(self) -> str:
        """What QEMU says of the guest: `running`, `paused` and so on."""
        return str(self.control("query-status")["status"])

    @property
    def console(self) -> str:
        """Everything that the guest has ever said."""
        if not self.console_file.exists():
            return ""
        return self.console_file.read_text(errors="replace").replace("\r", "")

    @property
    def boots(self) -> int:
        return len(re.findall(r"^guest: up$", self.console, re.MULTILINE))

    def position(self, writer: Literal["order", "files"]) -> int:
        """How far a writer said that it is; it says so once a second."""
        found = re.findall(rf"^{writer}: (?:at|starts from)(?: A=)? ?(\d+)", self.console, re.MULTILINE)
        return int(found[-1]) if found else 0

    def wait_until_written(self, seconds: float = 60.0) -> None:
        """Return when both writers have come further than they were; the guest runs, and nothing holds it still."""
        before = self.position("order"), self.position("files")
        wait_for(
            lambda: self.position("order") > before[0] and self.position("files") > before[1],
            seconds,
            lambda: f"a writer stands still at {before}; the console ends with {self.console[-600:]!r}",
        )


def wait_for(
    condition: Callable[[], bool], seconds: float, explanation: Callable[[], str], every: float = 0.05
) -> None:
    """Return when the condition holds; asks every so many seconds, and raises with the explanation in the end."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(explanation())
        time.sleep(every)


def _ended(process: int, seconds: float) -> bool:
    """Whether the process ends in time; its files are closed then, which its command line does not tell."""
    poller = select.poll()
    poller.register(process, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _block_device(number: int, path: Path) -> str:
    """The disk's node, `disk0` and so on, as an operator would set it up: through the host's cache, with flushes."""
    cache = "cache.direct=off,cache.no-flush=off"
    image = f"driver={format_of(path)},node-name=disk{number},discard=unmap,{cache}"
    return f"{image},file.driver=file,file.filename={path},file.discard=unmap,file.cache.direct=off"
