"""An installation by names of before goes on unchanged: its settings, state folder, copies and commands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.cli.program import Place, started
from tests.releases import ONE_LOCAL, release

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """The settings of before, which nobody has changed."""
    made = Place(tmp_path)
    folder = tmp_path / "declared"
    made.configure(drivers__compute="local", drivers__storage="local", local__instances_dir=str(folder))
    return made


def test_what_one_package_had_is_that_of_two(place: Place) -> None:
    before = release(ONE_LOCAL, place.folder / "releases")
    older = replace(place, variables={"PYTHONPATH": str(before.source)})
    disk = place.disk("web-root", b"one")
    older.good("instance", "add", "web", "--disk", f"{disk},name=root,format=raw", "--project", "default")
    with started(older, "serve") as service:
        for name in ("kept", "gone"):
            older.good("snapshot", "create", name, "--instance", "web", "--wait")
    assert "its name is" not in service.log.read_text(), "this release has played the one before"
    disk.write_bytes(b"two".ljust(disk.stat().st_size, b"."))
    with started(place, "serve") as service:
        found = place.good("doctor", "-f", "json").document
        assert {one["result"] for one in found} == {"ok"}, found
        assert "compute qemu, storage files" in {one["detail"] for one in found}
        assert place.statuses() == {"kept": "available", "gone": "available"}
        place.good("snapshot", "restore", "kept", "--wait")
        assert place.content("web", "root") == b"one"
        place.good("snapshot", "delete", "gone", "--wait")
        place.good("snapshot", "delete", "kept", "--wait")
        assert not list((place.folder / "disks" / ".stillframe").iterdir())
    said = service.log.read_text()
    for present in ("compute = local in [drivers] is deprecated; its name is qemu now", "its name is files now"):
        assert present in said
