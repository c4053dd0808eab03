"""Processes of the lab: started, stopped, killed and restarted one by one, each with a log of its own."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import amqp
import requests

__all__ = ["HOST", "MARK", "Option", "Place", "Service", "answers", "consumed", "free_port", "ini", "until"]

HOST = "127.0.0.1"
# Every process of a lab carries the lab's folder in this variable; what still carries it at the end is killed.
MARK = "STILLFRAME_LAB_FOLDER"
REPOSITORY = Path(__file__).resolve().parents[3]

Option = str | int | float | bool


@dataclass(frozen=True)
class Place:
    """Where a lab lives: its folder, and the virtualenv of its services."""

    folder: Path
    venv: Path

    def program(self, name: str) -> str:
        return str(self.venv / "bin" / name)

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def environment(self, **more: str) -> dict[str, str]:
        """Nothing of the starter's environment but what is said here."""
        path = [str(self.folder / "python"), str(REPOSITORY / "src"), str(REPOSITORY)]
        return {
            "PATH": f"{self.venv / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": ":".join(path),
            "PYTHONWARNINGS": "ignore",
            MARK: str(self.folder),
            **more,
        }

    def run(self, *command: str, **more: str) -> str:
        """Run a command of the lab to its end and return what it prints.

        Raises:
            RuntimeError: it failed; the message has its output.
        """
        done = subprocess.run(
            command,
            env=self.environment(**more),
            cwd=self.folder,
            capture_output=True,
            check=False,
            text=True,
            timeout=300,
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"{' '.join(command)} failed ({done.returncode}):\n{(done.stdout + done.stderr)[-6000:]}"
            )
        return done.stdout


class Service:
    """One service: a process, whatever that forks, and a sign that it is ready."""

    patience = 240.0

    def __init__(
        self,
        place: Place,
        name: str,
        command: Sequence[str],
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.place = place
        self.name = name
        self.command = list(command)
        self.environment = dict(environment or {})
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.place.log(self.name)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def begin(self) -> None:
        """Start it without waiting for it."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=self.place.environment(**self.environment),
                cwd=self.place.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it is ready.

        Raises:
            RuntimeError: it ended, or is not ready in `patience` seconds; the message has the end of its log.
        """

        def look() -> bool:
            if not self.running:
                raise RuntimeError(f"{self.name} has ended:\n{self._last_words()}")
            return self._ready()

        try:
            until(look, self.patience)
        except TimeoutError as error:
            raise RuntimeError(f"{self.name} is not ready:\n{self._last_words()}") from error

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.begin()
        self.wait()

    def stop(self) -> None:
        """End it in order; what has not ended after half a minute is killed."""
        if self._process is None:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        self.kill()

    def kill(self) -> None:
        """Crash it: SIGKILL to the process and all that it forked."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """SIGSTOP: who connects is not refused, and hears nothing; what is asked meanwhile is done after `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, also where it was not frozen."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop it in order, start it, wait until it is ready."""
        self.stop()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


def until(condition: Callable[[], bool], seconds: float, step: float = 0.1) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it did not hold in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing in {seconds:g} s")
        time.sleep(step)


def answers(url: str) -> Callable[[], bool]:
    """The sign of an HTTP server: it answers, with whatever status below 500."""

    def ready() -> bool:
        try:
            return requests.get(url, timeout=10).status_code < 500
        except requests.RequestException:
            return False

    return ready


def consumed(transport: str, queue: str) -> Callable[[], bool]:
    """The sign of a service that works from a queue of the RabbitMQ at `transport` (host:port): it has a consumer."""

    def ready() -> bool:
        try:
            with amqp.Connection(transport, login_method="PLAIN", connect_timeout=5) as connection:
                return bool(connection.channel().queue_declare(queue, passive=True).consumer_count)
        except (OSError, amqp.AMQPError):
            return False

    return ready


def free_port() -> int:
    """A port below those that the kernel gives to outgoing connections, or one of them could hold it at a restart."""
    while True:
        port = random.randint(20000, 32000)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


def ini(sections: Mapping[str, Mapping[str, Option | Sequence[str]]]) -> str:
    """The text of a configuration file of oslo.config; an option with several values stands on several lines."""
    lines: list[str] = []
    for section, options in sections.items():
        lines.append(f"[{section}]")
        for name, value in options.items():
            values = [value] if isinstance(value, Option) else value
            lines.extend(f"{name} = {one}" for one in values)
        lines.append("")
    return "\n".join(lines)
