"""Which process somebody is: a name that no other process has, before or after it.

Nothing here imports anything but the standard library, for the watchdog uses it. What cannot be told, such as who is in
another namespace of processes, is None, and is taken neither for the same process nor for another one.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_CREDENTIALS: Final = struct.Struct("3i")  # process, user and group (unix(7), SO_PEERCRED)
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE: Final = Path("/proc/self/ns/pid")
# Fields of /proc/PID/stat behind the name of the program (proc(5)): the third of all and the 22nd.
_STATE: Final = 0
_START: Final = 19
_ENDED: Final = frozenset({"Z", "X"})


class _Name(NamedTuple):
    boot: str
    namespace: str
    pid: int
    start: str


def listener(connected: socket.socket) -> str | None:
    """The process that listens at the other end of a unix socket."""
    pid, _user, _group = _CREDENTIALS.unpack(
        connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return name_of(pid)


def name_of(pid: int) -> str | None:
    """The name of a process that there is, or that has ended and that nobody has waited for yet."""
    found = _stat(pid)
    try:
        boot, namespace = _BOOT.read_text().strip(), _NAMESPACE.readlink().name
    except OSError:
        return None
    return None if found is None else f"{boot} {namespace} {pid} {found[_START]}"


def is_another(process: str | None, than: str | None) -> bool:
    """Whether two names are certainly not those of one process."""
    one, other = _read(process), _read(than)
    if one is None or other is None:
        return False
    return one.boot != other.boot or (one.namespace == other.namespace and one != other)


def is_gone(process: str | None) -> bool:
    """Whether a process has certainly ended."""
    known, ours = _read(process), _read(name_of(os.getpid()))
    if known is None or ours is None:
        return False
    if known.boot != ours.boot or known.namespace != ours.namespace:
        return known.boot != ours.boot
    # Who belongs to somebody else may not be told, but is there.
    with suppress(PermissionError):
        try:
            os.kill(known.pid, 0)
        except ProcessLookupError:
            return True
    found = _stat(known.pid)
    return found is not None and (found[_START] != known.start or found[_STATE] in _ENDED)


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _read(process: str | None) -> _Name | None:
    parts = (process or "").split(" ")
    if len(parts) != len(_Name._fields) or not parts[2].isdecimal():
        return None
    return _Name(parts[0], parts[1], int(parts[2]), parts[3])
