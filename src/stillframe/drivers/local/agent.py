"""The guest agent's protocol: JSON lines over a unix socket, one short conversation at a time."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from stillframe.domain.errors import BackendError, Unavailable

_SENTINEL: Final = b"\xff"
# A guest that is busy or emulated takes its time.
_SYNC_SECONDS: Final = 5.0


class AgentError(BackendError):
    """The guest agent answered with an error."""


def ask(path: Path, command: str, seconds: float) -> Any:
    """The agent's answer to one command; raises `Unavailable` if it does not answer in time, `AgentError`."""
    with _conversation(path) as (channel, stream):
        _send(channel, {"execute": command})
        channel.settimeout(seconds)
        reply = _reply(stream)
        if "error" in reply:
            raise AgentError(f"guest agent refused {command}: {reply['error'].get('desc', reply['error'])}")
        return reply.get("return")


def tell(path: Path, command: str) -> None:
    """Send a command that has no answer, such as guest-shutdown; raises `Unavailable`."""
    with _conversation(path) as (channel, _):
        _send(channel, {"execute": command})


@contextmanager
def _conversation(path: Path) -> Iterator[tuple[socket.socket, Any]]:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(_SYNC_SECONDS)
            channel.connect(str(path))
            with channel.makefile("rb") as stream:
                # Answers to somebody's earlier commands may still be on their way; the token tells ours apart.
                token = secrets.randbits(31)
                # A byte that no JSON has makes the agent drop what it holds of a broken command; it answers that with
                # an error of its own, so it comes before nothing but the synchronisation, which skips answers.
                channel.sendall(_SENTINEL)
                _send(channel, {"execute": "guest-sync-delimited", "arguments": {"id": token}})
                while _reply(stream).get("return") != token:
                    pass
                yield channel, stream
    except OSError as problem:
        raise Unavailable(f"the guest agent on {path} does not answer: {problem}") from None


def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.sendall(json.dumps(message).encode() + b"\n")


def _reply(stream: Any) -> dict[str, Any]:
    line = stream.readline()
    if not line:
        raise ConnectionResetError("closed by the other side")
    try:
        found = json.loads(line.rpartition(_SENTINEL)[2])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
