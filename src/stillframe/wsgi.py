"""The API for a WSGI server of the operator's choice, such as gunicorn: `stillframe.wsgi:application()`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stillframe import main
from stillframe.cli.command import CONFIG_VARIABLE
from stillframe.domain.errors import InvalidInput
from stillframe.logs.setup import set_up_log
from stillframe.settings import load
from stillframe.store.silence import OnceAMinute

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication


def application(config_files: Sequence[str] = ()) -> WSGIApplication:
    """What `stillframe api` serves, to be called once in each process that serves it, after it was forked.

    Without `config_files` the settings are read from the files that `STILLFRAME_CONFIG` names, else from
    `/etc/stillframe/stillframe.conf`. Raises `InvalidInput` for settings that cannot be used: an SQLite database, for
    which there can be no worker beside it, and `noauth`, for nobody here sees whether the server listens on loopback.
    """
    files = config_files or [path for path in os.environ.get(CONFIG_VARIABLE, "").split(os.pathsep) if path]
    # Nobody here sees on which address the server listens.
    settings = load(files, [(None, "bind_host", "0.0.0.0")])  # noqa: S104
    if settings.database.url.startswith("sqlite"):
        raise InvalidInput("needs PostgreSQL or MariaDB, as 'stillframe api' does", "database.connection")
    if settings.api.auth_strategy == "noauth":
        raise InvalidInput("noauth is for 'stillframe serve' and 'stillframe api'; use another one", "auth_strategy")
    set_up_log(settings.conf, OnceAMinute())
    wsgi: WSGIApplication = main.build(settings, serve=True).wsgi
    return wsgi
