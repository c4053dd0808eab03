"""Whether a process can do its work: asked by balancers, and answered at once."""

from __future__ import annotations

import threading
import time
from math import inf
from typing import TYPE_CHECKING

from stillframe.domain.errors import Unavailable
from stillframe.service.readiness import Readiness
from tests.api.running import running
from tests.api.test_metrics import samples

if TYPE_CHECKING:
    from pathlib import Path


def problem(readiness: Readiness) -> str | None:
    """What is said once a look has ended that began from here on."""
    until = time.monotonic() + 30
    while readiness.problem() == "nothing yet" and time.monotonic() < until:
        time.sleep(0.05)
    return readiness.problem()


def test_a_look_says_what_is_wrong_and_is_made_anew_after_a_second() -> None:
    clock, errors = [0.0], [Unavailable("away"), None]

    def look() -> None:
        error = errors.pop(0)
        if error is not None:
            raise error

    readiness = Readiness(look, lambda: clock[0])
    assert problem(readiness) == "away"
    assert problem(readiness) == "away"
    clock[0] = 1.5
    assert problem(readiness) is None
    assert not errors


def test_a_look_that_hangs_is_waited_for_by_nobody_and_is_an_answer_after_a_while() -> None:
    clock, go_on = [0.0], threading.Event()
    looks: list[None] = []

    def look() -> None:
        looks.append(None)
        if len(looks) > 1:
            go_on.wait()

    readiness = Readiness(look, lambda: clock[0])
    assert problem(readiness) is None
    clock[0] = 1.5
    assert readiness.problem() is None
    clock[0] = 5.0
    assert "does not answer" in str(readiness.problem())
    assert len(looks) == 2
    go_on.set()


def test_a_process_with_its_database_is_ready(tmp_path: Path) -> None:
    with running(tmp_path) as api:
        ready = api.call("GET", "/readiness", headers={"Host": "balancer"})
        assert (ready.status_code, ready.text) == (200, "ready")
        assert api.call("HEAD", "/readiness").status_code == 200
        assert api.call("POST", "/readiness").status_code == 405
        assert samples(api)["stillframe_database_up", ()] == 1


def test_every_series_is_there_from_the_start(tmp_path: Path) -> None:
    with running(tmp_path) as api:
        found = samples(api)
        for name, labels in (
            ("stillframe_operations_total", {"action": "restore", "outcome": "failed"}),
            ("stillframe_operation_duration_seconds_count", {"action": "delete"}),
            ("stillframe_janitor_sweeps_total", {"outcome": "failed"}),
            ("stillframe_job_runs_total", {"name": "janitor", "outcome": "failed"}),
            ("stillframe_job_overdue_seconds", {"name": "janitor"}),
            ("stillframe_leftovers_swept_total", {"kind": "copy", "outcome": "failed"}),
            ("stillframe_hung_calls", {}),
            ("stillframe_guests_held", {}),
            (
                "stillframe_http_requests_total",
                {"method": "GET", "route": "/volume/v3/{project_id}/instance-snapshots", "status": "500"},
            ),
        ):
            assert found[name, tuple(sorted(labels.items()))] == 0, name
        # Nobody knows before the janitor has looked.
        assert ("stillframe_copies_lost", ()) not in found
        assert found["stillframe_last_failed_operation_age_seconds", (("action", "restore"),)] == inf
        assert found["stillframe_job_board_up", ()] == 1
        assert found["stillframe_workers_alive", ()] >= 1
