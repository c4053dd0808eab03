"""QEMU's monitor and the guest's agent, each asked over its unix socket with one connection a question.

Both serve one client at a time, so nothing here stays connected and gets into the way of the service.
"""

from __future__ import annotations

import json
import secrets
import socket
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

SENTINEL: Final = b"\xff"


class MonitorError(RuntimeError):
    """The other side refused, or went away."""


def ask_monitor(path: Path, command: str, timeout: float = 30.0, **arguments: Any) -> Any:
    """Run one QMP command and return its result; events that come in between are passed over."""
    with _connected(path, timeout) as stream:
        _read(stream)  # the greeting
        _exchange(stream, {"execute": "qmp_capabilities"})
        return _exchange(stream, {"execute": command, "arguments": arguments})


def ask_agent(path: Path, command: str, timeout: float = 30.0, **arguments: Any) -> Any:
    """Run one command of the guest's agent and return its result."""
    with _connected(path, timeout) as stream:
        _synchronise(stream)
        return _exchange(stream, {"execute": command, "arguments": arguments})


def tell_agent(path: Path, command: str, timeout: float = 30.0, **arguments: Any) -> None:
    """Run an agent's command that is not answered, such as `guest-shutdown`."""
    with _connected(path, timeout) as stream:
        _synchronise(stream)
        _write(stream, {"execute": command, "arguments": arguments})


def _connected(path: Path, timeout: float) -> socket.SocketIO:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(str(path))
        return connection.makefile("rwb", buffering=0)
    finally:
        connection.close()  # the stream keeps it open


def _synchronise(stream: socket.SocketIO) -> None:
    """Pass over answers that an earlier client did not wait for."""
    number = secrets.randbits(31)
    stream.write(SENTINEL)
    _write(stream, {"execute": "guest-sync-delimited", "arguments": {"id": number}})
    while True:
        line = _line(stream)
        if SENTINEL in line and json.loads(line.rpartition(SENTINEL)[2]).get("return") == number:
            return


def _exchange(stream: socket.SocketIO, request: dict[str, Any]) -> Any:
    _write(stream, request)
    while True:
        answer = _read(stream)
        if "error" in answer:
            raise MonitorError(f"{request['execute']}: {answer['error']}")
        if "return" in answer:
            return answer["return"]


def _write(stream: socket.SocketIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")


def _read(stream: socket.SocketIO) -> dict[str, Any]:
    answer = json.loads(_line(stream))
    assert isinstance(answer, dict)
    return answer


def _line(stream: socket.SocketIO) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = stream.read(1)
        if not byte:
            raise MonitorError("the connection was closed")
        line += byte
    return bytes(line)
