"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated user acting in a project with roles, and the request it acts by.

    `token`: what Keystone knows the user by, if it was Keystone who said so.
    """

    user_id: str
    project_id: str
    roles: frozenset[str]
    request_id: str
    global_request_id: str | None = None
    token: str | None = field(default=None, repr=False)


def system_caller(name: str, request_id: str) -> Caller:
    """The service itself, where it acts by time: by the name of its job, and with no role in any project."""
    return Caller(f"stillframe:{name}", "", frozenset(), request_id)
