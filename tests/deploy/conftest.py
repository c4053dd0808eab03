"""A service that users sign in to, on PostgreSQL: what stands behind a server of the operator's choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bcrypt
import pytest

from tests.cli.program import Place
from tests.databases import database_url, postgresql_server

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

__all__ = ["database_url", "place", "postgresql_server"]


@pytest.fixture
def server_kind() -> str:
    return "postgresql"


@pytest.fixture
def place(tmp_path: Path, database_url: sa.URL) -> Place:
    """Settings, an upgraded database, and `alice` with her password in the environment of commands."""
    made = Place(tmp_path)
    users = tmp_path / "htpasswd"
    users.write_bytes(b"alice:" + bcrypt.hashpw(b"right", bcrypt.gensalt(4)) + b"\n")
    made.configure(
        auth_strategy="http_basic",
        http_basic__user_file=str(users),
        http_basic__grants="alice:default:member",
        oslo_middleware__enable_proxy_headers_parsing="true",
        database__connection=database_url.render_as_string(hide_password=False),
    )
    made.variables.update(OS_AUTH_TYPE="http_basic", OS_USERNAME="alice", OS_PASSWORD="right")
    made.good("db", "upgrade")
    return made
