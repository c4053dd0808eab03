"""What the processes of a service share of an array: one token, and a number of commands a second."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stillframe.domain.errors import Unavailable
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.options import ArrayOptions
from stillframe.drivers.storage_virtualize.shared import Shared
from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.server import PASSWORD, USER, SimulatedArray, simulated

#: Another process of the service, which gives some commands.
OTHER = """
import sys
from pathlib import Path
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.options import ArrayOptions

endpoint, user, password, ca_file, folder, limit, count = sys.argv[1:]
client = Client(ArrayOptions("a", endpoint, user, password, ca_file=Path(ca_file), timeout=60,
                             commands_a_second=int(limit), shared_folder=Path(folder)))
for _ in range(int(count)):
    client.run("lssystem")
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[SimulatedArray]:
    with simulated(tmp_path, Array()) as served:
        yield served


@pytest.fixture
def options(served: SimulatedArray, tmp_path: Path) -> ArrayOptions:
    return ArrayOptions(
        "a", served.endpoint, USER, PASSWORD, ca_file=served.ca_file, timeout=60, shared_folder=tmp_path / "arrays"
    )


def others(options: ArrayOptions, number: int, count: int) -> list[subprocess.Popen[bytes]]:
    given = [options.endpoint, USER, PASSWORD, options.ca_file, options.shared_folder, options.commands_a_second, count]
    return [subprocess.Popen([sys.executable, "-c", OTHER, *map(str, given)]) for _ in range(number)]


def test_processes_sign_in_once_and_none_is_told_that_it_asks_too_much(
    options: ArrayOptions, served: SimulatedArray
) -> None:
    served.array.behaviour.requests_a_second = 10
    began = time.monotonic()
    for one in others(options, 3, 10):
        assert one.wait(120) == 0
    assert len(served.tokens) == 1
    assert time.monotonic() - began > 2.5
    assert served.refused_for_haste == 0


def test_a_token_that_has_expired_is_renewed_by_one(options: ArrayOptions, served: SimulatedArray) -> None:
    clients = [Client(options) for _ in range(4)]
    for client in clients:
        client.run("lssystem")
    served.tokens.clear()
    for client in clients:
        client.run("lssystem")
    assert len(served.tokens) == 1


def test_nobody_else_can_read_the_token(options: ArrayOptions, served: SimulatedArray) -> None:
    Client(options).run("lssystem")
    folder = options.shared_folder
    assert folder is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    held = [file for file in folder.iterdir() if next(iter(served.tokens)) in file.read_text()]
    assert [stat.S_IMODE(file.stat().st_mode) for file in held] == [0o600]


def test_another_user_there_gets_a_token_of_its_own(options: ArrayOptions, served: SimulatedArray) -> None:
    Client(options).run("lssystem")
    Client(replace(options, endpoint=options.endpoint.replace("127.0.0.1", "localhost"))).run("lssystem")
    assert len(served.tokens) == 2


def test_a_guest_that_is_held_waits_for_nobody(tmp_path: Path) -> None:
    shared = Shared(tmp_path, "a", "address", 10)
    end = time.monotonic() + 60
    for _ in range(8):
        shared.take_turn(end, urgent=False)
    with pytest.raises(Unavailable, match="more commands"):
        shared.take_turn(time.monotonic(), urgent=False)
    for _ in range(2):
        shared.take_turn(time.monotonic(), urgent=True)


@pytest.mark.parametrize("content", ["", "{", "[1e400]", '{"token": "a b", "of": ""}', "\x00"])
def test_files_that_nobody_can_read_are_written_anew(
    options: ArrayOptions, served: SimulatedArray, content: str
) -> None:
    Client(options).run("lssystem")
    assert options.shared_folder is not None
    for file in options.shared_folder.iterdir():
        file.write_text(content)
    Client(options).run("lssystem")
    assert len(served.tokens) == 2
