"""A snapshot that could not be put back is none that is taken, and doctor knows of which volumes that is true."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.drivers.problems import Problems

if TYPE_CHECKING:
    from tests.openstack.played import PlayedWorld

SPARSE = {"volume_backend_name": "fast", "sparse_copy_volume": True}
THIN_LVM = {**SPARSE, "location_info": "LVMVolumeDriver:node:vg:thin:0"}
THICK_LVM = {"volume_backend_name": "fast", "location_info": "LVMVolumeDriver:node:vg:default:0"}


def problems(played: PlayedWorld) -> list[str]:
    (way,) = played.drivers.all(Problems)
    return [f"{one.what} -- {one.mend}" for one in way.problems()]


def test_a_snapshot_without_a_way_back_is_refused_and_told_by_doctor(played: PlayedWorld) -> None:
    for capabilities in (SPARSE, THIN_LVM):
        # First, as the threads of a service that has been started look at the back ends, too.
        played.cloud.capabilities = capabilities
        played.look_anew()
        code, words = played.refused({"vm-snapshot": {"name": "s"}})
        assert (code, "could not be put back" in words) == (400, True), words
        assert played.cloud.asked("POST /volume") == []
        (told,) = problems(played)
        assert "storage@fast#pool" in told
        assert "reverting_backends" in told


def test_a_snapshot_with_one_is_taken(played: PlayedWorld) -> None:
    for capabilities in (THICK_LVM, {"volume_backend_name": "fast"}):
        # First, as the threads of a service that has been started look at the back ends, too.
        played.cloud.capabilities = capabilities
        played.look_anew()
        assert problems(played) == []
        assert played.show(played.create())["status"] == "available"
