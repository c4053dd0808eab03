"""What of a server is in none of the copies is told with the snapshot, and once more when it is put back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.openstack.played import PlayedWorld


def kinds(told: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    assert all(one["why"].endswith(".") for one in told)
    return [(one["kind"], one["volume_id"]) for one in told]


def test_a_server_of_volumes_alone_lacks_nothing(played: PlayedWorld) -> None:
    snapshot_id, _task = played.begin_create()
    played.settle()
    assert played.show(snapshot_id)["not_included"] == []
    assert played.progress(played.begin("restore", snapshot_id, force=True))["not_included"] == []
    played.settle()


def test_disks_of_the_compute_host_and_volumes_left_out_are_told(played: PlayedWorld) -> None:
    first, second = played.server.volumes
    played.server.image = "an-image"
    played.server.flavor = {"disk": 20, "ephemeral": 10, "swap": 512}
    shown = played.show(played.create(first))
    local: list[tuple[str, str | None]] = [("root_disk", None), ("ephemeral_disk", None), ("swap_disk", None)]
    assert kinds(shown["not_included"]) == [*local, ("volume", second)]
    task = played.begin("restore", shown["id"], force=True)
    assert kinds(played.progress(task)["not_included"]) == [*local, ("volume", second)]
    played.settle()
    assert played.show(shown["id"])["not_included"] == shown["not_included"]


def test_a_volume_attached_since_is_told_before_the_restore_and_one_detached_refuses_it(played: PlayedWorld) -> None:
    snapshot_id = played.create()
    newer = played.cloud.attach(played.server)
    task = played.begin("restore", snapshot_id, force=True)
    (told,) = played.progress(task)["not_included"]
    assert (told["volume_id"], "attached after the snapshot" in told["why"]) == (newer.id, True)
    played.settle()
    assert played.show(snapshot_id)["not_included"] == []
    gone = played.server.volumes[0]
    played.cloud.detach(played.server, gone)
    code, words = played.restore_refused(snapshot_id)
    assert (code, gone in words, "Attach them again" in words) == (400, True, True)
