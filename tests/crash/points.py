"""Points at which a service can be killed or lied to: before and after every outside change and every store write.

A point after a commit, or before or after a mere look, has the same world around it as the next point that is listed
here: nothing changed in between. So the list is complete without them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from stillframe.domain.errors import BackendError, Unavailable
from stillframe.drivers.files.images import Images
from stillframe.drivers.files.storage import FileStorage
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.platform import Drivers
from stillframe.drivers.qemu import options as qemu_options
from stillframe.drivers.qemu.commands import Qemu
from stillframe.drivers.qemu.compute import QemuCompute
from stillframe.drivers.qemu.declaration import Declarations
from stillframe.drivers.qemu.guard import Guard
from stillframe.settings import Settings
from tests.harness.surround import surround

_LOOKS: Final = frozenset({"can_clone", "free", "status", "listens", "nodes", "job"})

#: The file whose presence makes the restore of the volume that it names fail.
BROKEN: Final = "broken-volume"


@dataclass
class Points:
    """Counts points, and at number `at` (from 0; None: never) does what `strike` says.

    `kill` ends the process by SIGKILL. `lost` lets the call succeed and loses its reply; `refused` fails the call
    before it does anything; both are for driver calls only.
    """

    at: int | None = None
    strike: str = "kill"
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_by(self, name: str) -> bool:
        """Note a point; kills the process if it is the one. True where the caller has to strike."""
        with self.lock:
            number = len(self.seen)
            self.seen.append(name)
            if number != self.at:
                return False
            if self.strike == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            return True

    def around_effects(self, name: str, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Points before and after each single effect on files and on QEMU."""
        if name in _LOOKS:
            return method(*args, **kwargs)
        self.pass_by(f"before {name}")
        result = method(*args, **kwargs)
        self.pass_by(f"after {name}")
        return result

    def around_calls(self, name: str, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """One point for each driver call that can be repeated: its reply is lost, or it is refused for good."""
        if name == "quiesced" or not self.pass_by(f"call {name}"):
            return method(*args, **kwargs)
        if self.strike == "refused":
            raise BackendError(f"{name} was refused, as the test wished")
        method(*args, **kwargs)
        raise Unavailable(f"the reply of {name} was lost, as the test wished")

    def watch(self, engine: sa.Engine) -> None:
        """A point before each commit."""
        sa.event.listen(engine, "commit", lambda _connection: self.pass_by("before commit"))


def struck_drivers(settings: Settings, points: Points) -> Drivers:
    """The local drivers with the points in them."""
    if points.strike == "kill":
        files = surround(Files(), points.around_effects)
        qemu = surround(Qemu(), points.around_effects)
    else:
        files, qemu = Files(), Qemu()
    instances, state, images = qemu_options.read(settings).instances, settings.state_dir / "local", Images()
    compute = QemuCompute(instances, state, files, qemu, guard=Guard())
    storage = surround(
        FileStorage(Declarations(instances), compute, qemu, state, files, images), _break(settings.state_dir / BROKEN)
    )
    if points.strike == "kill":
        return Drivers(compute, storage)
    return Drivers(surround(compute, points.around_calls), surround(storage, points.around_calls))


def _break(mark: Path) -> Callable[..., Any]:
    def around(name: str, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if name == "restore" and mark.exists() and mark.read_text() == args[2]:
            raise BackendError("this volume cannot be restored, as the test wished")
        return method(*args, **kwargs)

    return around
