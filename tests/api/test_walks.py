"""Walks that a tool takes by the OpenAPI document alone: nothing breaks, and what is refused has changed nothing.

`STILLFRAME_WALK_CASES` is how many requests are made; 3,000 take some minutes.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import Flaky

from tests.harness.faults import wait_until

if TYPE_CHECKING:
    from tests.api.running import Running

CASES: Final = int(os.environ.get("STILLFRAME_WALK_CASES", "150"))
STEPS: Final = 10


def test_walks_by_the_document_break_nothing_and_refusals_change_nothing(api: Running) -> None:
    instance = api.instance("walked")
    known = {"project_id": instance.project_id, "server_id": instance.id, "volume_id": instance.volume_ids[0]}
    answered: Counter[int] = Counter()
    wrong: list[str] = []
    walks = schemathesis.openapi.from_dict(walkable(api)).as_state_machine()

    class Walk(walks):  # type: ignore[misc, valid-type]  # made of the document
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            # Ids of ours lead behind the first 404; those of snapshots come from the replies before.
            case.path_parameters = {
                name: known.get(name, value) for name, value in (case.path_parameters or {}).items()
            }
            settle(api, instance.id)
            self.before = api.everything()
            return {"base_url": api.url, "session": api.session}

        def validate_response(self, response: Any, case: Any, **_more: Any) -> None:
            answered[response.status_code] += 1
            # Noted, not raised: what is played again gets other ids, and would be taken for a flaw of the test.
            if response.status_code >= 500:
                wrong.append(f"{case.as_curl_command()}: {response.text}")
            if response.status_code >= 400 and api.everything() != self.before:
                wrong.append(f"{case.as_curl_command()} was refused and has changed something")

    rules = settings(
        max_examples=2,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(-(-CASES // (2 * STEPS))):
            with suppress(Flaky):
                seed(number)(Walk).run(settings=rules)
    settle(api, instance.id)
    print(dict(sorted(answered.items())))  # noqa: T201  # the numbers of a long walk
    assert wrong == []
    assert answered.total() >= CASES / 2
    assert {200, 202, 400, 404} <= answered.keys()


def walkable(api: Running) -> dict[str, Any]:
    """The document, which says as well how a snapshot that was just made is restored."""
    document: dict[str, Any] = api.call("GET", "/openapi.json").json()
    action = document["paths"]["/compute/v2.1/{project_id}/servers/{server_id}/action"]["post"]
    for way in ("force", "retry", "rollback"):
        arguments = {"instance_snapshot_id": "$response.body#/instance_snapshot/id", "force": True, way: True}
        action["responses"]["200"]["links"][way] = {
            "operationId": action["operationId"],
            "parameters": {name: f"$request.path.{name}" for name in ("project_id", "server_id")},
            "requestBody": {"vm-restore": arguments},
        }
    return document


def settle(api: Running, instance_id: str) -> None:
    """Wait for the end of what was accepted."""
    wait_until(
        lambda: api.idle() and api.service.instances.task_state(instance_id) is None, "something goes on for ever"
    )
