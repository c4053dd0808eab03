"""The client of the array: tokens, back-off, TLS, refusals, and secrets that stay secret."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stillframe.domain.errors import (
    BackendError,
    Conflict,
    InvalidInput,
    NotFound,
    NotSupported,
    OutOfSpace,
    StillframeError,
    Unavailable,
)
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.options import ArrayOptions
from stillframe.drivers.storage_virtualize.refusals import refusal
from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.objects import GRAIN
from tests.lab.storage_virtualize.server import PASSWORD, USER, SimulatedArray, simulated

NEW: dict[str, str | int] = {"size": GRAIN, "unit": "b", "mdiskgrp": "pool0"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[SimulatedArray]:
    with simulated(tmp_path, Array()) as served:
        served.array.add_vdisk("volume", GRAIN)
        yield served


@pytest.fixture
def options(served: SimulatedArray) -> ArrayOptions:
    return ArrayOptions("a", served.endpoint, USER, PASSWORD, ca_file=served.ca_file, timeout=2, first_wait=0.01)


@pytest.fixture
def client(options: ArrayOptions) -> Iterator[Client]:
    client = Client(options)
    yield client
    client.close()


def test_a_command_is_answered(client: Client) -> None:
    assert client.run("lssystem")["name"] == "array"
    assert client.run("mkvdisk", name="new", **NEW)["id"] == "1"
    assert client.run("rmvdisk", "new", force=False) is None


def test_an_expired_token_is_renewed_without_anybody_noticing(served: SimulatedArray, client: Client) -> None:
    client.run("lssystem")
    served.tokens.clear()
    assert client.run("lssystem")["name"] == "array"


def test_a_command_that_the_role_forbids_is_refused_in_the_end(served: SimulatedArray, client: Client) -> None:
    served.faults.put("mkvdisk", "expire", times=100)
    with pytest.raises(BackendError, match="as the test wished"):
        client.run("mkvdisk", name="new", **NEW)
    assert served.faults.commands.count("mkvdisk") == 3


def test_threads_that_find_the_token_expired_sign_in_once(served: SimulatedArray, client: Client) -> None:
    client.run("lssystem")
    served.tokens.clear()
    threads = [threading.Thread(target=client.run, args=("lssystem",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served.tokens) == 1


def test_too_many_requests_are_sent_again_later(served: SimulatedArray, client: Client) -> None:
    served.faults.put("mkvdisk", "busy", times=3)
    client.run("mkvdisk", name="new", **NEW)
    assert served.faults.commands.count("mkvdisk") == 4
    assert served.objects()["vdisks"] == ["new", "volume"]


def test_an_array_that_stays_busy_is_unavailable(served: SimulatedArray, client: Client) -> None:
    served.faults.put("lssystem", "busy", times=100)
    with pytest.raises(Unavailable, match="too many requests"):
        client.run("lssystem")


def test_no_reply_is_unavailable(served: SimulatedArray, client: Client, options: ArrayOptions) -> None:
    client.run("lssystem")
    served.faults.put("lssystem", "drop")
    served.faults.put("lssystem", "break", nth=2)
    served.faults.put("lssystem", "hang", nth=3, seconds=5)
    impatient = Client(replace(options, timeout=0.3))
    for _ in range(3):
        with pytest.raises(Unavailable):
            impatient.run("lssystem")
    served.stop()
    with pytest.raises(Unavailable):
        Client(options).run("lssystem")


def test_a_wrong_password_is_said_and_not_shown(
    options: ArrayOptions, served: SimulatedArray, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = replace(options, password="secret-word")
    with pytest.raises(BackendError, match="does not accept the credentials") as refused:
        Client(wrong).run("lssystem")
    Client(options).run("lssystem")
    told = f"{caplog.text} {refused.value} {wrong!r}"
    assert "secret-word" not in told
    assert PASSWORD not in told
    assert not any(token in told for token in served.tokens)


def test_a_password_can_be_kept_in_a_file_and_changed_there(options: ArrayOptions, tmp_path: Path) -> None:
    file = tmp_path / "password"
    client = Client(replace(options, password=None, password_file=file))
    with pytest.raises(BackendError, match="cannot be read"):
        client.run("lssystem")
    file.write_text("old")
    with pytest.raises(BackendError):
        client.run("lssystem")
    file.write_text(f"{PASSWORD}\n")
    assert client.run("lssystem")


def test_a_certificate_of_an_unknown_authority_is_not_trusted(options: ArrayOptions, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        Client(replace(options, ca_file=None)).run("lssystem")
    assert Client(replace(options, ca_file=None, verify_tls=False)).run("lssystem")
    with pytest.raises(InvalidInput, match="ca_file"):
        Client(replace(options, ca_file=tmp_path / "missing"))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("CMMVC5753E", NotFound),
        ("CMMVC5804E", NotFound),
        ("CMMVC6035E", Conflict),
        ("CMMVC8710E", OutOfSpace),
        ("CMMVC5786E", Unavailable),
        ("CMMVC5709E", NotSupported),
        ("CMMVC9999E", BackendError),
    ],
)
def test_a_refusal_keeps_its_code_and_text(
    served: SimulatedArray, client: Client, code: str, kind: type[StillframeError]
) -> None:
    served.faults.put("rmvdisk", "fail", code=code)
    with pytest.raises(kind, match=rf"Array 'a': rmvdisk volume: {code} as the test wished") as refused:
        client.run("rmvdisk", "volume")
    assert type(refused.value) is kind


def test_a_refusal_without_a_code_is_one_too() -> None:
    assert type(refusal("here", "no")) is BackendError
