"""Whoever listens on a unix socket and says what a test has it say: monitors and guest agents that mean no good."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

GREETING: Final = {
    "QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}
}

#: Deals with one connection; what the other side's leaving raises ends it.
Part = Callable[[socket.socket], None]


@contextmanager
def speaking(path: Path, part: Part) -> Iterator[None]:
    """Somebody listens on the path, and deals with each connection by itself."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(64)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=play, args=(connection,), daemon=True).start()

        def play(connection: socket.socket) -> None:
            with connection, suppress(OSError, ValueError):
                part(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def saying(*words: bytes, endless: bytes = b"", hold: bool = False) -> Part:
    """Says words at once, then others for ever, and then stays on the line or hangs up."""

    def part(connection: socket.socket) -> None:
        for some in words:
            connection.sendall(some)
        while endless:
            connection.sendall(endless)
        while hold and connection.recv(1 << 16):
            continue

    return part


def answering(answer: Callable[[dict[str, Any]], bytes], first: bytes = b"") -> Part:
    """Says something first, and then answers each message."""

    def part(connection: socket.socket) -> None:
        connection.sendall(first)
        for message in messages(connection):
            connection.sendall(answer(message))

    return part


def messages(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """What the other side says, one message after the other; not every client ends them by a newline."""
    heard = ""
    while some := connection.recv(1 << 16):
        heard = (heard + some.replace(b"\xff", b"").decode()).lstrip()
        while heard:
            try:
                message, end = json.JSONDecoder().raw_decode(heard)
            except ValueError:
                break
            heard = heard[end:].lstrip()
            yield message


def line(message: object) -> bytes:
    """A message as it goes over the wire."""
    return json.dumps(message).encode() + b"\n"


def agent_saying(words: bytes) -> Part:
    """A guest agent that shows that it is there, and answers everything with the same words."""

    def answer(message: dict[str, Any]) -> bytes:
        if message["execute"] == "guest-sync-delimited":
            return b"\xff" + line({"return": message["arguments"]["id"]})
        return words

    return answering(answer)


def monitor_saying(words: bytes) -> Part:
    """A monitor that greets, and answers everything with the same words."""

    def answer(message: dict[str, Any]) -> bytes:
        if message["execute"] == "qmp_capabilities":
            return line({"return": {}} | ({"id": message["id"]} if "id" in message else {}))
        return words

    return answering(answer, line(GREETING))


class ScriptedAgent:
    """A guest agent that keeps its state and serves one client after the other, as the real one does.

    `hangs`: what it is stuck at when it is asked for it, until `go_on`; it has done it then. `refuses`: what it answers
    with an error. `botches`: what it does, and answers with an error all the same. `heard`: what it was asked to do.
    `frozen` may be set as another tool would.
    """

    def __init__(self) -> None:
        self.frozen = False
        self.file_systems = 2
        self.hangs: set[str] = set()
        self.refuses: set[str] = set()
        self.botches: set[str] = set()
        self.heard: list[str] = []
        self._going_on = threading.Event()
        self._turn = threading.Lock()

    def go_on(self) -> None:
        """It does what it was stuck at, and is stuck no more."""
        self.hangs.clear()
        self._going_on.set()

    def part(self, connection: socket.socket) -> None:
        """See `speaking`."""
        with self._turn:
            answering(self._answer)(connection)

    def _answer(self, message: dict[str, Any]) -> bytes:
        command = message["execute"]
        if command == "guest-sync-delimited":
            return b"\xff" + line({"return": message["arguments"]["id"]})
        if command != "guest-fsfreeze-status":
            self.heard.append(command)
        if command in self.hangs:
            self._going_on.wait(120)
        if command in self.refuses or (command == "guest-fsfreeze-freeze" and self.frozen):
            desc = f"Command {command} has been disabled: the command is not allowed"
            return line({"error": {"class": "GenericError", "desc": desc}})
        before = self.frozen
        if command == "guest-fsfreeze-status":
            return line({"return": "frozen" if before else "thawed"})
        self.frozen = command == "guest-fsfreeze-freeze" and self.file_systems > 0
        if command in self.botches:
            return line({"error": {"class": "GenericError", "desc": "failed to freeze /home: Invalid argument"}})
        return line({"return": self.file_systems if command == "guest-fsfreeze-freeze" or before else 0})
