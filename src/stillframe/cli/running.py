"""What serve, api and worker have in common: one process that runs until a signal ends it."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from oslo_config import cfg
from oslo_log import log

from stillframe import main
from stillframe.api.auth import require_safe_binding
from stillframe.cli.borders import answering_database, usable_settings
from stillframe.cli.exit_codes import ExitCode
from stillframe.cli.http_server import HttpServer, end_on_signal
from stillframe.cli.locks import folder_lock

if TYPE_CHECKING:
    from stillframe.main import Service
    from stillframe.settings import Settings

LOG = logging.getLogger(__name__)

_STOP_SECONDS: Final = 30.0

Say = Callable[[str], None]


def run(settings: Settings, say: Say, *, serve: bool, work: bool) -> None:
    """Serve the API, work off operations, or both, until SIGTERM or SIGINT; raises `CommandFailed`."""
    with ExitStack() as stack:
        if serve:
            with usable_settings():
                require_safe_binding(settings)
        _set_up_log(settings.conf)
        service = stack.enter_context(_service(settings, serve=serve, work=work))
        ending = stack.enter_context(end_on_signal())
        if serve:
            api = settings.api
            http = HttpServer(service.wsgi, api.bind_host, api.bind_port, api.threads, api.max_body_size)
            _start(service, work=work)
            say(f"stillframe {'serves' if work else 'accepts'} on {http.address} (authentication: {api.auth_strategy})")
            http.run(ending)
        else:
            _start(service, work=work)
            say("stillframe works off what is accepted")
            ending.wait()
        LOG.info("ending")


def _set_up_log(conf: cfg.ConfigOpts) -> None:
    """The standard output is for the one line that is meant for it; oslo.log would take it for the log."""
    if not (conf.log_file or conf.log_dir or conf.use_journal):
        conf.set_default("use_stderr", True)
    log.setup(conf, "stillframe")


def _start(service: Service, *, work: bool) -> None:
    if work:
        service.start()


@contextmanager
def _service(settings: Settings, *, serve: bool, work: bool) -> Iterator[Service]:
    with ExitStack() as stack:
        with usable_settings(), answering_database():
            database = main.open_database(settings)
        if work and database.is_file:
            # Claims are for several workers; this kind of database has one, and that it has to be sure of.
            stack.enter_context(folder_lock(settings.state_dir))
        with usable_settings(), answering_database():
            service = main.build(settings, database=database, serve=serve)
        try:
            yield service
        finally:
            started = time.monotonic()
            if not service.stop(_STOP_SECONDS):
                LOG.warning("after %.0f s something still runs; it is resumed", time.monotonic() - started)
                # The interpreter would wait for its threads, and a copy may take hours.
                logging.shutdown()
                os._exit(ExitCode.OK if sys.exc_info()[0] is None else ExitCode.FAILED)
