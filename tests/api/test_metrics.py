"""The metrics that an operator watches and is woken by."""

from __future__ import annotations

import re
from math import inf
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stillframe.domain.errors import BackendError
from tests.api.running import APART, running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.api.running import Running


def samples(api: Running) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = api.call("GET", "/metrics").text
    families = text_string_to_metric_families(text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.skipif(APART, reason="each process counts what ended in it, and the API's is asked")
def test_operations_are_counted_while_they_run_and_when_they_ended(tmp_path: Path) -> None:
    with running(tmp_path) as api:
        instance = api.instance()
        action = (("action", "snapshot"),)
        assert samples(api)["stillframe_open_operations", action] == 0
        with api.faults.holding("complete"):
            reply = api.act(instance, {"vm-snapshot": {"name": "one"}})
            during = samples(api)
            assert during["stillframe_open_operations", action] == 1
            assert during["stillframe_oldest_open_operation_age_seconds", action] > 0
            bucket = (("action", "snapshot"), ("le", "60.0"))
            assert during["stillframe_open_operation_age_seconds_bucket", bucket] == 1
            assert during["stillframe_queue_depth", ()] >= 0
        api.wait(reply.json()["instance_snapshot"]["task_uri"])
        after = samples(api)
        assert after["stillframe_open_operations", action] == 0
        outcome = (("action", "snapshot"), ("outcome", "succeeded"))
        assert after["stillframe_operations_total", outcome] == 1
        assert after["stillframe_operation_duration_seconds_count", action] == 1


def test_a_failure_is_told_by_processes_that_did_not_count_it(tmp_path: Path) -> None:
    name, action = "stillframe_last_failed_operation_age_seconds", (("action", "snapshot"),)
    with running(tmp_path) as api:
        instance = api.instance()
        api.snapshot(instance)
        assert samples(api)[name, action] == inf
        api.faults.fail("complete", BackendError("broken by the test"))
        api.snapshot(instance)
        # Of a service that is scaled out, this is the API, and a worker has counted.
        told = samples(api)
        assert told[name, action] == pytest.approx(0, abs=60)
        assert told[name, (("action", "restore"),)] == inf
    if not APART:
        with running(tmp_path) as anew:
            assert samples(anew)[name, action] == pytest.approx(0, abs=120)


def test_requests_are_counted_by_route_and_never_by_path(tmp_path: Path) -> None:
    with running(tmp_path) as api:
        instance = api.instance()
        snapshot_id = api.snapshot(instance)
        api.show(instance, snapshot_id)
        api.call("GET", "/v3/other/instance-snapshots/nothing")
        api.call("BREW", f"/{snapshot_id}")
        found = samples(api)
        route = ("route", "/volume/v3/{project_id}/instance-snapshots/{id}")
        assert found["stillframe_http_requests_total", (("method", "GET"), route, ("status", "200"))] == 1
        assert found["stillframe_http_requests_total", (("method", "GET"), route, ("status", "404"))] == 1
        assert found["stillframe_http_request_duration_seconds_count", (("method", "GET"), route)] == 2
        text = api.call("GET", "/metrics").text
        assert not re.search("[0-9a-f]{8}-[0-9a-f]{4}", text)
        assert "BREW" not in text
        assert instance.project_id not in text


def test_two_services_in_one_process_do_not_share_their_metrics(api: Running, tmp_path: Path) -> None:
    api.snapshot(api.instance())
    with running(tmp_path) as other:
        counted = [value for key, value in samples(other).items() if key[0] == "stillframe_operations_total"]
        assert counted
        assert not any(counted)
