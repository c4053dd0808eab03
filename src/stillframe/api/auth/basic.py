"""Users of an htpasswd file, and the roles that the settings grant them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stillframe.api.auth.guard import IMPLIED_ROLES, Guard, new_caller, wrong_project
from stillframe.domain.errors import Forbidden, InvalidInput

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from stillframe.service.caller import Caller
    from stillframe.settings import Settings

_GRANT_PARTS: Final = 3


def http_basic(settings: Settings) -> Guard:
    """As [http_basic] says; raises `InvalidInput` for a file or grants that it cannot work with."""
    from stillframe.api.auth.passwords import Passwords  # noqa: PLC0415  # brings bcrypt along

    grants = _parse_grants(settings.api.basic_grants)
    passwords = Passwords(Path(settings.api.basic_user_file))

    def identify(environ: WSGIEnvironment, url_project: str | None) -> Caller:
        user_id = passwords.user(environ.pop("HTTP_AUTHORIZATION", None))
        projects = grants.get(user_id)
        if not projects:
            raise Forbidden(f"User '{user_id}' has been granted no role in any project.")
        project_id = next(iter(projects)) if url_project is None else url_project
        if project_id not in projects:
            raise wrong_project(project_id, next(iter(projects)))
        return new_caller(environ, user_id, project_id, projects[project_id])

    challenge = 'Basic realm="stillframe", charset="UTF-8"'
    return Guard(identify, challenge=challenge, costly=passwords.costly, usable=passwords.usable)


def _parse_grants(grants: tuple[str, ...]) -> Mapping[str, Mapping[str, frozenset[str]]]:
    parsed: dict[str, dict[str, frozenset[str]]] = defaultdict(dict)
    for grant in grants:
        parts = grant.strip().split(":")
        if len(parts) != _GRANT_PARTS or not all(parts) or parts[2] not in IMPLIED_ROLES:
            raise InvalidInput(
                f"'{grant}' is no grant; it must be USER:PROJECT:ROLE with a role of {', '.join(IMPLIED_ROLES)}",
                "http_basic.grants",
            )
        user_id, project_id, role = parts
        known = parsed[user_id].get(project_id, frozenset())
        parsed[user_id][project_id] = known | IMPLIED_ROLES[role]
    return dict(parsed)
