"""The attacker is an array, or whoever stands in its place: it lies, floods, hangs, and answers late."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from stillframe.domain.errors import BackendError, Damaged, StillframeError, Unavailable
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.options import ArrayOptions
from stillframe.testing.world import a_call
from tests.attacks.bounds import BOUND, TIMEOUT, failing
from tests.attacks.hostile import WAYS, hostile, plain, redirect
from tests.conformance.worlds import ArrayWorld
from tests.lab.storage_virtualize.server import PASSWORD, USER, simulated
from tests.storage_virtualize.conftest import make, world
from tests.storage_virtualize.stories import SIZE, three

__all__ = ["make", "world"]


def client_of(url: str, timeout: float = BOUND) -> closing[Client]:
    return closing(Client(ArrayOptions("a", url, USER, PASSWORD, timeout=timeout, first_wait=0.01)))


@pytest.mark.parametrize("way", WAYS)
def test_no_answer_holds_a_thread_or_fills_the_memory_or_is_believed(way: str) -> None:
    with (
        hostile(WAYS[way]) as server,
        client_of(server.url, TIMEOUT) as client,
        failing(Unavailable, secret=PASSWORD),
    ):
        client.run("lssystem")


@pytest.mark.parametrize("way", WAYS)
def test_no_answer_to_a_command_is_taken_for_its_success(way: str) -> None:
    """The sign-in succeeds, and then the command's answer is whatever it is."""
    with hostile(plain(b'{"token": "good"}')) as server, client_of(server.url, TIMEOUT) as client:
        client._sign_in("", time.monotonic() + BOUND)  # noqa: SLF001  # the next answer is another
        server.way = WAYS[way]
        with pytest.raises(StillframeError) as told:
            Array(client).vdisk("volume")
        assert told.value.__cause__ is None


def test_sign_ins_that_hang_keep_no_queue_of_threads() -> None:
    with hostile(WAYS["says nothing"]) as server, client_of(server.url, TIMEOUT) as client:

        def ask() -> None:
            with pytest.raises(Unavailable):
                client.run("lssystem")

        threads = [threading.Thread(target=ask) for _ in range(20)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND)
        assert time.monotonic() - began < BOUND


def test_a_redirection_gets_neither_the_token_nor_the_password() -> None:
    with (
        hostile(plain(b'{"token": "good"}')) as elsewhere,
        hostile(redirect(f"{elsewhere.url}/rest/v1/auth")) as server,
        client_of(server.url) as client,
    ):
        with pytest.raises(Unavailable):
            client.run("lssystem")
        assert elsewhere.heard == []


def test_cookies_are_not_kept() -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nSet-Cookie: a=" + b"b" * 4000 + b"; Path=/\r\n"
    with hostile(plain(b'{"token": "good"}', head)) as server, client_of(server.url) as client:
        for _ in range(3):
            client.run("lssystem")
        assert not any(b"cookie" in heard.lower() for heard in server.heard)


def test_secrets_that_come_back_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="stillframe")
    with hostile(plain(b'{"token": "the-token"}')) as server, client_of(server.url) as client:
        client.run("lssystem")
        said = f"CMMVC9999E the-token {PASSWORD}\x1b[31m\nforged line".encode()
        server.way = plain(said, b"HTTP/1.1 500 Error\r\nConnection: close\r\n")
        with pytest.raises(BackendError) as told:
            client.run("rmvdisk", "volume")
        for text in (told.value.message, caplog.text):
            assert "the-token" not in text
            assert PASSWORD not in text
            assert "\x1b" not in text
        assert "\n" not in told.value.message


class TestLies:
    """The array says that it has done what it has not."""

    def test_a_removal_that_did_not_happen_is_no_deletion(self, world: ArrayWorld) -> None:
        copy = world.snapshot(world.add((SIZE,)))[0]
        world.served.faults.put("rmvdisk", "lie", times=9)
        with pytest.raises(BackendError, match="rmvdisk"):
            world.storage.delete(a_call(), copy.reference)
        assert [one.id for one in world.storage.find(None)] == [copy.id]

    @pytest.mark.parametrize("code", ["CMMVC5753E", "CMMVC5754E", "CMMVC5804E", "CMMVC8957E"])
    @pytest.mark.parametrize("command", ["rmvdisk", "rmfcmap", "stopfcmap"])
    def test_what_is_said_to_be_gone_and_is_there_is_no_deletion(
        self, world: ArrayWorld, code: str, command: str
    ) -> None:
        copy = world.snapshot(world.add((SIZE,)))[0]
        world.served.faults.put(command, "fail", code=code, times=9)
        with pytest.raises(BackendError, match=code):
            world.storage.delete(a_call(), copy.reference)
        assert [one.id for one in world.storage.find(None)] == [copy.id]

    @pytest.mark.parametrize("way", ["lie", "fail"])
    def test_a_group_that_is_said_to_be_gone_makes_no_copy_available(self, world: ArrayWorld, way: str) -> None:
        instance = world.add((SIZE,))
        names = world.names(instance)
        made = world.storage.cut(a_call(), instance, names).snapshots[0]
        world.served.faults.put("rmfcconsistgrp", way, code="CMMVC5804E", times=9)
        with pytest.raises(BackendError):
            world.storage.complete(a_call(), made.reference)

    def test_a_start_that_did_not_happen_makes_no_copy(self, world: ArrayWorld) -> None:
        instance = world.add((SIZE,))
        names = world.names(instance)
        world.served.faults.put("startfcconsistgrp", "lie")
        made = world.storage.cut(a_call(), instance, names).snapshots[0]
        with pytest.raises(Damaged):
            world.storage.complete(a_call(), made.reference)

    @pytest.mark.parametrize("command", ["startfcmap", "mkfcmap"])
    def test_a_restore_that_did_not_begin_is_no_restore(self, world: ArrayWorld, command: str) -> None:
        instance, made, _contents = three(world)
        before = world.read(instance.volume_ids[0])
        world.served.faults.put(command, "lie", times=99)
        with pytest.raises(BackendError):
            world.storage.restore(a_call(), instance, instance.volume_ids[0], made[0].id)
        assert world.read(instance.volume_ids[0]) == before

    def test_a_mapping_that_vanishes_in_a_restore_is_no_success(self, world: ArrayWorld) -> None:
        instance, made, _contents = three(world)
        world.served.array.behaviour.speed = 0.001
        done: list[BaseException | None] = []

        def restore() -> None:
            try:
                world.storage.restore(a_call(), instance, instance.volume_ids[0], made[0].id)
            except StillframeError as error:
                done.append(error)
            else:
                done.append(None)

        thread = threading.Thread(target=restore)
        thread.start()
        _remove_when_it_copies(world)
        thread.join(BOUND)
        assert isinstance(done[0], BackendError), done
        assert "deleted it" in str(done[0])

    def test_an_object_that_is_said_to_be_there_and_is_another_is_an_error(self, world: ArrayWorld) -> None:
        instance = world.add((SIZE,))
        world.served.faults.put("mkvdisk", "fail", code="CMMVC6035E", times=9)
        with pytest.raises(BackendError, match="another"):
            world.storage.prepare_cut(a_call(), instance, world.names(instance))

    @pytest.mark.parametrize("command", ["stopfcmap", "rmfcmap", "rmvdisk"])
    def test_a_code_for_what_is_so_already_is_no_failure(self, world: ArrayWorld, command: str) -> None:
        """Carried out, and answered with a refusal: it looks as if somebody else had been faster."""
        copy = world.snapshot(world.add((SIZE,)))[0]
        world.served.faults.put(command, "refuse after", code="CMMVC5912E")
        world.storage.delete(a_call(), copy.reference)
        assert world.storage.find(None) == []


def _remove_when_it_copies(world: ArrayWorld) -> None:
    until = time.monotonic() + BOUND
    while time.monotonic() < until:
        with world.served.lock:
            world.served.array.advance()
            for number, one in list(world.served.array.mappings.items()):
                if one.name.startswith("sfr-") and one.status == "copying":
                    del world.served.array.mappings[number]
                    return
        time.sleep(0.005)
    pytest.fail("no restore has begun")


def test_a_late_answer_is_of_an_operation_that_is_looked_for(world: ArrayWorld) -> None:
    """The replies to the commands of a cut are lost one by one: what they did is found, and nothing is made twice."""
    for command in ("mkvdisk", "mkfcconsistgrp", "mkfcmap", "prestartfcconsistgrp"):
        instance = world.add((SIZE,))
        names = world.names(instance)
        world.served.faults.put(command, "lose")
        with pytest.raises(Unavailable):
            world.storage.prepare_cut(a_call(), instance, names)
        prepared = world.storage.prepare_cut(a_call(), instance, names)
        made = world.storage.cut(a_call(), instance, names, prepared).snapshots[0]
        assert world.storage.complete(a_call(), made.reference).ready


@pytest.fixture
def page(tmp_path: Path) -> Iterator[ArrayWorld]:
    with simulated(tmp_path) as served:
        world = ArrayWorld(tmp_path, served)
        yield world
        world.close()


@pytest.mark.parametrize("command", ["auth", "lsvdisk", "lsfcmap", "mkvdisk", "mkfcmap", "rmvdisk", "lssystem"])
def test_a_page_of_a_proxys_is_no_answer(page: ArrayWorld, command: str) -> None:
    """With HTTP 200, as a proxy answers that wants people to log in."""
    instance = page.add((SIZE,))
    if command == "auth":
        page.served.tokens.clear()
    page.served.faults.put(command, "page", times=2)
    began = time.monotonic()
    for _ in range(4):
        with suppress(Unavailable):
            copy = page.snapshot(instance)[0]
            page.storage.delete(a_call(), copy.reference)
            page.client.run("lssystem")
            break
    else:
        pytest.fail("it does not go on once the array answers again")
    assert time.monotonic() - began < 2 * BOUND
