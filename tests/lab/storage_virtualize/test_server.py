"""The simulated array over HTTPS: tokens, refusals, and what it can be told to do wrong."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.objects import GRAIN
from tests.lab.storage_virtualize.server import PASSWORD, USER, SimulatedArray, simulated


@pytest.fixture
def served(tmp_path: Path) -> Iterator[SimulatedArray]:
    with simulated(tmp_path, Array()) as served:
        served.array.add_vdisk("volume", GRAIN)
        yield served


class Client:
    def __init__(self, served: SimulatedArray) -> None:
        self._http = httpx.Client(base_url=served.endpoint, verify=ssl.create_default_context(cafile=served.ca_file))
        self.token = ""

    def sign_in(self, password: str = PASSWORD) -> httpx.Response:
        headers = {"X-Auth-Username": USER, "X-Auth-Password": password}
        reply = self._http.post("/rest/v1/auth", headers=headers)
        self.token = reply.json()["token"] if reply.status_code == 200 else ""
        return reply

    def run(self, command: str, **parameters: Any) -> httpx.Response:
        return self._http.post(f"/rest/v1/{command}", headers={"X-Auth-Token": self.token}, json=parameters)

    def lab(self, what: str, **wish: Any) -> None:
        self._http.post(f"/lab/{what}", json=wish).raise_for_status()


@pytest.fixture
def client(served: SimulatedArray) -> Client:
    client = Client(served)
    client.sign_in()
    return client


def test_nobody_is_let_in_without_a_token(served: SimulatedArray) -> None:
    client = Client(served)
    assert client.run("lssystem").status_code == 403
    assert client.sign_in("wrong").status_code == 403
    assert client.sign_in().status_code == 200
    assert client.run("lssystem").json()["name"] == "array"


def test_the_certificate_is_only_known_to_those_who_trust_its_authority(served: SimulatedArray) -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"{served.endpoint}/rest/v1/auth")


def test_a_token_expires(served: SimulatedArray, client: Client) -> None:
    served.array.behaviour.token_seconds = 0.05
    client.sign_in()
    assert client.run("lssystem").status_code == 200
    time.sleep(0.06)
    assert client.run("lssystem").status_code == 403


def test_too_many_requests_are_answered_so(served: SimulatedArray, client: Client) -> None:
    served.array.behaviour.requests_a_second = 3
    assert {client.run("lssystem").status_code for _ in range(8)} == {200, 429}


def test_a_refusal_comes_with_its_code(client: Client) -> None:
    reply = client.run("rmvdisk/unknown")
    assert reply.status_code == 500
    assert "CMMVC5753E" in reply.text


def test_the_nth_command_is_refused_or_lost(served: SimulatedArray, client: Client) -> None:
    client.lab("faults", command="mkvdisk", way="fail", nth=2, code="CMMVC8710E")
    client.lab("faults", command="mkvdisk", way="lose", nth=3)
    client.lab("faults", command="mkvdisk", way="drop", nth=4)
    wanted = {"size": GRAIN, "unit": "b", "mdiskgrp": "pool0"}
    assert client.run("mkvdisk", name="first", **wanted).status_code == 200
    assert "CMMVC8710E" in client.run("mkvdisk", name="second", **wanted).text
    for name in ("third", "fourth"):
        with pytest.raises(httpx.TransportError):
            client.run("mkvdisk", name=name, **wanted)
    assert served.objects()["vdisks"] == ["first", "third", "volume"]


def test_an_array_can_be_unreachable_for_a_while(client: Client) -> None:
    client.lab("unreachable", seconds=0.2)
    with pytest.raises(httpx.TransportError):
        client.run("lssystem")
    time.sleep(0.25)
    assert client.run("lssystem").status_code == 200


def test_what_was_kept_can_be_put_back(served: SimulatedArray) -> None:
    served.write("volume", 0, b"before")
    kept = served.keep()
    served.write("volume", 0, b"after!")
    served.put_back(kept)
    assert served.read("volume", 0, 6) == b"before"
