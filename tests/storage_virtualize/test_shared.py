"""What the processes of a service share of an array: one token, and a number of commands a second."""

from __future__ import annotations

import json
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
from stillframe.drivers.storage_virtualize.options import ArrayOptions, read
from stillframe.drivers.storage_virtualize.shared import AT_ONCE, TAKING_TURNS, Shared
from stillframe.settings import load
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


def test_services_on_several_hosts_live_with_what_an_array_gives(
    options: ArrayOptions, served: SimulatedArray, tmp_path: Path
) -> None:
    behaviour = served.array.behaviour
    behaviour.requests_a_second, behaviour.sign_ins_a_second, behaviour.tokens = 10, 3, 4
    # Each asks for as much as if there were nobody else.
    hosts = [replace(options, shared_folder=tmp_path / f"host-{number}") for number in range(4)]
    for one in [process for host in hosts for process in others(host, 2, 8)]:
        assert one.wait(240) == 0
    assert len(served.tokens) == 4
    fifth = Client(replace(options, shared_folder=tmp_path / "host-5", timeout=0.5, first_wait=0.1))
    with pytest.raises(Unavailable, match="others have all the tokens"):
        fifth.run("lssystem")
    # One of them is good no more.
    served.tokens.pop(next(iter(served.tokens)))
    assert Client(hosts[0]).run("lssystem")


def test_hosts_that_divide_the_limit_ask_an_array_for_no_more_than_it_takes(
    served: SimulatedArray, tmp_path: Path
) -> None:
    served.array.behaviour.requests_a_second = 10
    hosts: list[ArrayOptions] = []
    for number in range(2):
        config = tmp_path / f"host-{number}.conf"
        config.write_text(
            f"[DEFAULT]\nstate_dir = {tmp_path / f'state-{number}'}\n"
            "[drivers]\nstorage = storage_virtualize\n"
            "[storage_virtualize]\narrays = a\n"
            f"[array:a]\nendpoint = {served.endpoint}\nusername = {USER}\npassword = {PASSWORD}\n"
            f"ca_file = {served.ca_file}\ncommands_a_second = 5\ntimeout = 60\n"
        )
        hosts += read(load([str(config)])).arrays
    assert len({host.shared_folder for host in hosts}) == 2
    began = time.monotonic()
    for one in [process for host in hosts for process in others(host, 2, 5)]:
        assert one.wait(240) == 0
    assert served.refused_for_haste == 0
    # Of its five a second each host keeps two for cuts.
    assert time.monotonic() - began > 2.5


def test_who_is_told_that_it_is_too_much_keeps_the_others_from_asking(tmp_path: Path) -> None:
    shared, end = Shared(tmp_path, "a", "address", 10), time.monotonic() + 60
    shared.fill(end)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="more commands"):
        shared.take_turn(time.monotonic(), TAKING_TURNS)
    shared.take_turn(end, TAKING_TURNS)
    assert time.monotonic() - began > 0.5


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
        shared.take_turn(end, TAKING_TURNS)
    with pytest.raises(Unavailable, match="more commands"):
        shared.take_turn(time.monotonic(), TAKING_TURNS)
    for _ in range(2):
        shared.take_turn(time.monotonic(), AT_ONCE)


def test_what_a_cut_needs_is_kept_for_it_whatever_others_ask_for(tmp_path: Path) -> None:
    shared = Shared(tmp_path, "a", "address", 10)
    kept = [shared.reserve(2, time.monotonic() + 60) for _ in range(2)]
    # More would leave nothing for those who prepare.
    with pytest.raises(Unavailable, match="more commands"):
        shared.reserve(2, time.monotonic())
    for _ in range(20):
        shared.take_turn(time.monotonic() + 60, TAKING_TURNS)
    for turn in kept:
        for _ in range(2):
            shared.take_turn(time.monotonic(), turn)
    # Those of the last second.
    assert len(json.loads((tmp_path / "a.commands").read_text())) <= 10
    # What was kept has been used, and others can have as much.
    assert shared.reserve(2, time.monotonic() + 60).urgent


def test_what_is_kept_and_never_used_is_given_back(tmp_path: Path) -> None:
    shared = Shared(tmp_path, "a", "address", 1, longest_reservation=0.5)
    lost = shared.reserve(1, time.monotonic() + 60)
    shared.take_turn(time.monotonic() + 60, TAKING_TURNS)
    # It comes late, and is urgent all the same.
    shared.take_turn(time.monotonic(), lost)


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
