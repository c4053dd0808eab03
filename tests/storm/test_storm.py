"""Small storms, each of one seed; `make storm` has bigger ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storm.storm import Weather, storm


@pytest.mark.crash
# One of each database; `make storm` takes any two of them, and ten times as long.
@pytest.mark.parametrize(("board", "database"), [("redis", "postgresql"), ("etcd", "mariadb")])
def test_every_operation_comes_to_its_end_once_whatever_is_killed(board: str, database: str, tmp_path: Path) -> None:
    weather = Weather(1, board, database, operations=24, instances=6, workers=3, pauses=0.5, guests=2, longest_hang=4.0)
    report = storm(weather, tmp_path)
    assert not report.wrong, str(report)
    assert report.requests >= 24
    assert report.claims >= report.requests
    assert report.blows
    assert report.moods
