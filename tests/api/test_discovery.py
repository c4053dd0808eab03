"""How clients find their way: the version documents, with the library that OpenStack's clients use for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.discover import Discover
from keystoneauth1.noauth import NoAuth
from keystoneauth1.session import Session

if TYPE_CHECKING:
    from tests.api.running import Running


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", {(2, 1): "/compute/v2.1/", (3, 0): "/volume/v3/"}),
        ("/compute", {(2, 1): "/compute/v2.1/"}),
        ("/compute/", {(2, 1): "/compute/v2.1/"}),
        ("/compute/v2.1", {(2, 1): "/compute/v2.1/"}),
        ("/compute/v2.1/", {(2, 1): "/compute/v2.1/"}),
        ("/v2.1/", {(2, 1): "/v2.1/"}),
        ("/volume", {(3, 0): "/volume/v3/"}),
        ("/volume/", {(3, 0): "/volume/v3/"}),
        ("/volume/v3", {(3, 0): "/volume/v3/"}),
        ("/volume/v3/", {(3, 0): "/volume/v3/"}),
        ("/v3/", {(3, 0): "/v3/"}),
    ],
)
def test_keystoneauth_discovers_the_versions(api: Running, path: str, found: dict[tuple[int, int], str]) -> None:
    discover = Discover(Session(), api.url + path, authenticated=False)
    versions = {tuple(data["version"]): data["url"] for data in discover.version_data()}
    assert versions == {version: api.url + place for version, place in found.items()}


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 300), ("/compute", 200), ("/volume", 300), ("/compute/v2.1", 200), ("/volume/v3", 200)],
)
def test_the_documents_have_the_statuses_of_nova_and_cinder(api: Running, path: str, status: int) -> None:
    assert api.call("GET", path).status_code == status


def test_a_client_of_cinder_gets_along_with_its_usual_adapter(api: Running) -> None:
    instance = api.instance()
    snapshot_id = api.snapshot(instance)
    auth = NoAuth(endpoint=f"{api.url}/volume/v3/{instance.project_id}")
    adapter = Adapter(Session(auth=auth), service_type="block-storage", min_version="3", max_version="3.latest")
    shown = adapter.get(f"/instance-snapshots/{snapshot_id}").json()
    assert shown["instance_snapshot"]["id"] == snapshot_id
    endpoint = adapter.get_endpoint_data()
    assert endpoint is not None
    assert endpoint.api_version == (3, 0)
