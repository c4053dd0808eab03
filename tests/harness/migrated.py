"""An SQLite database at this release's schema: made once a process, since that costs more than most tests do."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa

from stillframe import main
from stillframe.store.database import connect


def lay_out(url: str) -> None:
    """Put such a database where this URL says, unless there is one; one of a server is left alone."""
    chosen = sa.make_url(url)
    if chosen.get_backend_name() != "sqlite" or Path(str(chosen.database)).exists():
        return
    file = Path(str(chosen.database))
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_bytes(_content())


@cache
def _content() -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "migrated.sqlite"
        database = connect(f"sqlite:///{file}", sqlite_synchronous="OFF")
        main.upgrade_database(database)
        database.close()
        assert [path.name for path in Path(folder).iterdir()] == [file.name]
        return file.read_bytes()
