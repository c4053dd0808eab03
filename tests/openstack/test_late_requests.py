"""Cinder works on a request whose answer nobody waits for any more, while what came after it is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.openstack.played import playing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.openstack.played import PlayedWorld


@pytest.fixture
def played(tmp_path: Path) -> Iterator[PlayedWorld]:
    # A restore that waits for a lost revert does so for as long as an hour.
    with playing(tmp_path, revert_timeout=3600, late_requests=5) as world:
        yield world


@pytest.mark.parametrize(
    ("request_", "looks"),
    [
        # In the moment between the look and the reset of the status.
        (r'"revert"', 1),
        # While the revert of the next attempt runs: `update_single_status_where` of Cinder's would not find it.
        (r'"os-reset_status".*"available"', 4),
        (r'"os-reset_status".*"in-use"', 5),
    ],
    ids=["revert", "available", "in-use"],
)
def test_a_restore_waits_for_a_request_that_comes_late(played: PlayedWorld, request_: str, looks: int) -> None:
    played.fill("then")
    snapshot_id = played.create()
    played.fill("now")
    played.cloud.storage.seconds = 1.0
    volume_id = played.server.volumes[0]
    path = f"/volume/volumes/{volume_id}"
    played.cloud.delay(f"POST {path}/action .*{request_}", f"GET {path}$", looks)
    shown = played.restore(snapshot_id, force=True)
    assert (shown["status"], shown["fault"], played.contents()) == ("available", None, {"then"})
    assert {one.status for one in played.cloud.volumes.values()} == {"in-use"}
    assert {one.status for one in played.cloud.snapshots.values()} == {"available"}
    played.delete(snapshot_id)
    assert played.cloud.snapshots == {}
