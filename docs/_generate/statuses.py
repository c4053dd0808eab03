"""The statuses, from the status table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from _generate.tables import table
from stillframe.domain.status import TRANSITIONS, Status, events_from, meaning

if TYPE_CHECKING:
    from collections.abc import Iterator


def page() -> Iterator[str]:
    yield "# Statuses"
    yield ""
    yield "The statuses of an instance snapshot. A status changes only as drawn here; every other request is refused."
    yield "A status that ends in `-ing` has an operation that works on it; every other one waits for a request."
    yield ""
    yield "```mermaid"
    yield "stateDiagram-v2"
    for status in Status:
        if status is not Status.GONE:
            yield f'    state "{status}" as {_state(status)}'
    yield f"    [*] --> {_state(Status.CREATING)}"
    for (start, event), end in TRANSITIONS.items():
        yield f"    {_state(start)} --> {'[*]' if end is Status.GONE else _state(end)}: {event}"
    yield "```"
    yield ""
    yield "## Meanings"
    yield ""
    yield from table(("Status", "Meaning", "Events that leave it"), map(_status, Status))
    yield "## Events"
    yield ""
    yield "`restore`, `retry`, `rollback` and `delete` are accepted requests; the other events are ends of operations."
    yield ""
    rows = ((f"`{event}`", f"`{start}`", f"`{end}`") for (start, event), end in TRANSITIONS.items())
    yield from table(("Event", "From", "To"), sorted(rows))


def _state(status: Status) -> str:
    return status.value.replace("-", "_")


def _status(status: Status) -> tuple[str, str, str]:
    events = sorted(event.value for event in events_from(status))
    return f"`{status}`", meaning(status), ", ".join(f"`{event}`" for event in events) or "-"
