"""What an operation was asked for comes out of the store as it went in, whichever release has written it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stillframe.domain.arguments import (
    Action,
    Arguments,
    CreateArguments,
    DeleteArguments,
    RestoreArguments,
    UnreadableArguments,
    from_data,
    to_data,
)
from stillframe.domain.omission import Omission
from stillframe.domain.snapshot import ConsistencyLevel

OMISSIONS = (Omission("local", None, "It stays."), Omission("volume", "v3", "It was not named."))
COPIES = {"v1": "c1", "v2": "c2"}

ALL: list[Arguments] = [
    CreateArguments(("v2", "v1"), ConsistencyLevel.APPLICATION),
    CreateArguments(("v1",)),
    DeleteArguments(),
    RestoreArguments(Action.RESTORE, COPIES, True, True, {"v1": "replace", "v2": "copy"}, OMISSIONS),
    RestoreArguments(Action.RETRY, {}, False, False, {}, ()),
    RestoreArguments(Action.ROLLBACK, COPIES, False, True, None, None),
]

# As the releases that are named have written them.
WRITTEN: dict[str, tuple[Action, dict[str, Any], Arguments]] = {
    "774b346 a snapshot": (Action.SNAPSHOT, {"volumes": ["v2", "v1"]}, CreateArguments(("v2", "v1"))),
    "774b346 a restore": (
        Action.RESTORE,
        {"force": True, "copies": COPIES, "safety_copies": True},
        RestoreArguments(Action.RESTORE, COPIES, True, True),
    ),
    "774b346 a rollback without safety copies": (
        Action.ROLLBACK,
        {"force": False, "copies": {}, "safety_copies": True},
        RestoreArguments(Action.ROLLBACK, {}, False, True),
    ),
    "642be15 a retry": (
        Action.RETRY,
        {"plan": {"v1": "copy"}, "force": False, "copies": {"v1": "c1"}, "safety_copies": False},
        RestoreArguments(Action.RETRY, {"v1": "c1"}, False, False, {"v1": "copy"}),
    ),
    "f3fe89c a snapshot": (
        Action.SNAPSHOT,
        {"volumes": ["v1"], "minimum_consistency": "filesystem"},
        CreateArguments(("v1",), ConsistencyLevel.FILESYSTEM),
    ),
    "f3fe89c a restore": (
        Action.RESTORE,
        {
            "plan": {"v1": "replace", "v2": "untouched"},
            "omissions": [["local", None, "It stays."], ["volume", "v3", "It was not named."]],
            "force": True,
            "copies": COPIES,
            "safety_copies": True,
        },
        RestoreArguments(Action.RESTORE, COPIES, True, True, {"v1": "replace", "v2": "untouched"}, OMISSIONS),
    ),
    "f3fe89c a deletion": (Action.DELETE, {}, DeleteArguments()),
}
#: What the release before, f3fe89c, reads of each kind.
READ = {
    Action.SNAPSHOT: {"volumes", "minimum_consistency"},
    Action.DELETE: set(),
    Action.RESTORE: {"copies", "force", "safety_copies", "plan", "omissions"},
}


@pytest.mark.parametrize("asked", ALL, ids=repr)
def test_arguments_come_out_as_they_went_in(asked: Arguments) -> None:
    kept = json.loads(json.dumps(to_data(asked)))
    assert from_data(asked.action, kept) == asked
    assert set(kept) >= READ.get(asked.action, READ[Action.RESTORE])


@pytest.mark.parametrize("name", WRITTEN)
def test_arguments_that_an_earlier_release_has_written_are_read(name: str) -> None:
    action, data, asked = WRITTEN[name]
    assert from_data(action, data) == asked


@pytest.mark.parametrize("name", [name for name in WRITTEN if name.startswith("f3fe89c")])
def test_arguments_are_written_as_the_release_before_did(name: str) -> None:
    _action, data, asked = WRITTEN[name]
    assert to_data(asked) == data


UNREADABLE: list[Any] = [None, 1, "v", [], ["v1"], {"volumes": None}, {"copies": 3}, {"copies": COPIES, "force": True}]
UNREADABLE.append({"copies": COPIES, "force": "no", "safety_copies": True})


@pytest.mark.parametrize("data", UNREADABLE, ids=repr)
def test_arguments_that_nobody_knows_raise_nothing(data: Any) -> None:
    for action in (Action.SNAPSHOT, Action.RESTORE, Action.RETRY, Action.ROLLBACK):
        assert from_data(action, data) == UnreadableArguments(action)
