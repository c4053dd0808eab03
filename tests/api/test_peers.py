"""Who sees the metrics where the API is served: the machine's own, and whom the settings name, without a proxy."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from stillframe import main, settings
from stillframe.domain.errors import InvalidInput
from tests.api.running import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAYS = ("/metrics", "/metrics/", "/%6detrics", "//metrics", "/metrics//", "/metrics?x=y")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that shows its metrics to another address of this machine only."""
    with running(tmp_path_factory.mktemp("peers"), (None, "metrics_peers", ["127.0.0.2"])) as api:
        yield api


def seen(url: str, path: str, source: str = "127.0.0.1", **headers: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port, timeout=30, source_address=(source, 0))
    connection.request("GET", path, headers=headers)
    reply = connection.getresponse()
    said = reply.read()
    connection.close()
    assert reply.status in (200, 404)
    return b"stillframe_" in said


def test_the_machine_s_own_see_them(api: Running) -> None:
    assert seen(api.url, "/metrics")
    assert seen(api.url, "/metrics/")


@pytest.mark.parametrize("path", WAYS)
@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded"])
def test_whoever_comes_by_a_proxy_does_not(api: Running, path: str, header: str) -> None:
    assert not seen(api.url, path, **{header: "127.0.0.1"})


@pytest.mark.parametrize("path", WAYS)
def test_only_those_that_the_settings_name_see_them(elsewhere: Running, path: str) -> None:
    assert not seen(elsewhere.url, path)
    assert seen(elsewhere.url, "/metrics", source="127.0.0.2")


def test_what_is_no_network_is_told(tmp_path: Path) -> None:
    overrides = [(None, "state_dir", str(tmp_path)), (None, "metrics_peers", ["prometheus"])]
    with pytest.raises(InvalidInput, match="'prometheus' is no network"):
        main.build(settings.load((), overrides))
