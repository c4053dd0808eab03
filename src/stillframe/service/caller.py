"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated user acting in a project with roles, and the request it acts by."""

    user_id: str
    project_id: str
    roles: frozenset[str]
    request_id: str
    global_request_id: str | None = None
    system_scope: str | None = None
    extra: dict[str, str] = field(default_factory=dict)
