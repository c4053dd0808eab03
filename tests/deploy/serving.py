"""Programs of others that serve the API, as the files in deploy/ set them up."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import requests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy"
_PATIENCE: Final = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(command: Sequence[str], address: str, log: Path, variables: Mapping[str, str]) -> Iterator[None]:
    """Run a server until the block is left, which begins once it answers at `address`; it has to end in order."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=dict(variables), stdout=output, stderr=output)
    try:
        until = time.monotonic() + _PATIENCE
        while not _answers(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield
        process.terminate()
        assert process.wait(_PATIENCE) in (0, 143, -signal.SIGTERM), log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=10).status_code < 500
    except requests.exceptions.SSLError:
        # Whatever it is that the environment trusts: somebody listens.
        return True
    except (requests.ConnectionError, requests.Timeout):
        return False
