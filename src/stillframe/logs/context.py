"""What the lines of the log say about whose sake they were written for: a request, and an operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from oslo_context import context


class _Context(context.RequestContext):
    """A context of oslo.log's that says more than whose request it was."""

    def __init__(
        self,
        request_id: str | None,
        operation_id: str | None,
        within: context.RequestContext | None,
        user: str | None = None,
    ) -> None:
        super().__init__(user_id=user, overwrite=False)
        self._request_id = request_id
        self._operation_id = operation_id
        self._within = within

    def to_dict(self) -> dict[str, Any]:
        """See `RequestContext`."""
        known = super().to_dict() if self._within is None else self._within.to_dict()
        # Where it is given none, the library makes up a request id, which would be nobody's.
        return {**known, "request_id": self._request_id, "operation_id": self._operation_id}


@contextmanager
def about(request_id: str, operation_id: str | None = None, *, user: str | None = None) -> Iterator[None]:
    """Let the lines that this thread logs in the block say which request and operation they are about.

    `user`: who acts, for a thread that acts for nobody else yet.
    """
    within = context.get_current()
    before = within or _Context(None, None, None)
    _Context(request_id, operation_id, within, user).update_store()
    try:
        yield
    finally:
        before.update_store()
