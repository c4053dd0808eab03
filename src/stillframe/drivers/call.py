"""What a driver is told about the operation on whose behalf it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """The operation behind a driver call.

    Long calls run `check` between their steps and at least once a second: it raises `Interrupted` when the operation
    is past its deadline or has been settled elsewhere, and the driver then leaves without changing anything more.
    `report` takes bytes done and bytes in all; it is cheap and may be called often. `instance_id` is what the operation
    is about, where there is one.
    """

    operation_id: str
    request_id: str
    check: Callable[[], None]
    report: Callable[[int, int], None]
    instance_id: str | None = None
