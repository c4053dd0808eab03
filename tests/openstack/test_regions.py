"""A cloud with several regions: the one that is meant is used, and where none is said, the doctor says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillframe.drivers.problems import Problems
from tests.lab.openstack.services import Option
from tests.lab.scripted.cloud import scripted_cloud
from tests.openstack.played import PlayedWorld


@pytest.mark.parametrize(
    ("options", "elsewhere", "told"),
    [
        ({}, "/elsewhere", ["compute"]),
        # One service for both regions.
        ({}, "/compute", []),
        ({"region_name": "r"}, "/elsewhere", []),
        ({"region_name": "nowhere"}, "/elsewhere", ["compute", "block-storage", "image"]),
    ],
)
def test_the_region_has_to_be_said_where_there_are_several(
    tmp_path: Path, options: dict[str, Option], elsewhere: str, told: list[str]
) -> None:
    with scripted_cloud() as cloud:
        cloud.endpoints.insert(0, ("compute", "another", elsewhere))
        cloud.endpoints.remove(("compute", "r", "/compute"))
        cloud.endpoints.insert(1, ("compute", "r", "/compute"))
        world = PlayedWorld(tmp_path, cloud, **options)
        try:
            problems = [one for way in world.drivers.all(Problems) for one in way.problems()]
            grave = [one for one in problems if one.grave]
            assert [kind for kind in ("compute", "block-storage", "image") for one in grave if kind in one.what] == told
            assert all("region_name" in one.mend for one in grave)
            if options.get("region_name") == "r":
                path = f"/compute/v2.1/{world.server.project_id}/servers/{world.server.id}"
                assert world.ask("GET", path).status_code == 200
                assert cloud.asked("/elsewhere") == []
        finally:
            world.stop()
