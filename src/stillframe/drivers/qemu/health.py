"""The declared instances of this machine and their sockets."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import StillframeError
from stillframe.domain.instance import PowerState
from stillframe.drivers.finding import Check, Finding, fail, ok, warn
from stillframe.drivers.qemu import options
from stillframe.drivers.qemu.commands import Qemu
from stillframe.drivers.qemu.declaration import Declaration, instance_files, load
from stillframe.drivers.qemu.power import power_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stillframe.settings import Settings

_ANSWER: Final = "see whether its storage answers: ls, in the folder of its disks"


def look(settings: Settings) -> Iterator[Finding | Check]:
    """All of them, each by itself."""
    folder = options.read(settings).instances
    declarations: list[Declaration] = []
    try:
        paths = instance_files(folder)
    except OSError as error:
        yield fail("instances", f"{folder} cannot be read: {error.strerror}", "let the service's user read it")
        return
    for path in paths:
        try:
            declarations.append(load(path))
        except StillframeError as error:
            yield fail("instance file", error.message, f"correct {path}")
    yield from _clashes(declarations)
    if not declarations:
        yield warn("instances", f"none is declared in {folder}", "stillframe instance add ...")
    qemu = Qemu(timeout=5.0)
    for declaration in declarations:
        yield Check(f"instance {declaration.name}", partial(_instance, declaration, qemu), _ANSWER)


def _instance(declaration: Declaration, qemu: Qemu) -> Iterator[Finding]:
    problems = list(_sockets(declaration, qemu))
    yield from problems
    if not problems:
        yield ok(f"instance {declaration.name}", f"{len(declaration.attached)} disks")


def _clashes(declarations: Sequence[Declaration]) -> Iterator[Finding]:
    ids: dict[str, str] = {}
    for declaration in declarations:
        other = ids.setdefault(declaration.id, declaration.name)
        if other != declaration.name:
            yield fail(
                f"instance {declaration.name}",
                f"it has the id of '{other}' and is left out",
                "give it an id of its own",
            )


def _sockets(declaration: Declaration, qemu: Qemu) -> Iterator[Finding]:
    what = f"instance {declaration.name}"
    try:
        state = power_state(declaration, qemu)
    except StillframeError as error:
        yield warn(what, f"its monitor cannot be asked: {error.message}", "look whether another program holds it")
        return
    if state is PowerState.SHUTOFF:
        return
    if state is PowerState.ERROR:
        yield fail(what, "its guest has broken down", "look at the guest")
    socket, agent = declaration.qmp_socket, declaration.guest_agent_socket
    if socket is not None and not declaration.start_command:
        yield warn(what, "it has no start command: after a restore with --force it stays off", "declare start_command")
    if socket is None:
        yield warn(what, "it runs and has no qmp_socket: it cannot be held still, shut down or started", "declare one")
    elif not socket.exists():
        yield fail(what, f"it runs, but nobody listens on {socket}", "correct qmp_socket, or start it with -qmp")
    if agent is None:
        yield warn(what, "it runs without guest agent: snapshots are crash-consistent", "declare guest_agent_socket")
    elif not agent.exists():
        yield fail(what, f"it runs, but {agent} is not there", "correct guest_agent_socket")
