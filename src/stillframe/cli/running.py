"""What serve, api and worker have in common: one process that runs until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from stillframe import main
from stillframe.api.auth import token_file
from stillframe.api.auth.strategies import NOBODY_IS_ASKED, require_safe_binding
from stillframe.api.http_server import HttpServer
from stillframe.cli.db import answering_database, remembered_database
from stillframe.cli.exit_codes import CommandFailed, ExitCode, usable_settings
from stillframe.cli.locks import folder_lock
from stillframe.logs.setup import set_up_log
from stillframe.store.silence import OnceAMinute

if TYPE_CHECKING:
    from stillframe.main import Service
    from stillframe.settings import Settings

LOG = logging.getLogger(__name__)

_STOP_SECONDS: Final = 30.0
_LOOK_EVERY: Final = 0.5
# Twice what deploy/haproxy.cfg takes for it.
_NOTICED_SECONDS: Final = 6.0

Say = Callable[[str], None]


def run(settings: Settings, say: Say, *, serve: bool, work: bool, build: Callable[..., Service] = main.build) -> None:
    """Serve the API, work off operations, or both, until SIGTERM or SIGINT; raises `CommandFailed`."""
    with ExitStack() as stack:
        if serve:
            with usable_settings():
                require_safe_binding(settings)
        set_up_log(settings.conf, OnceAMinute())
        stack.enter_context(reopen_on_hangup())
        if serve and settings.api.auth_strategy == "noauth":
            LOG.warning("auth_strategy = noauth: %s", NOBODY_IS_ASKED)
        service = stack.enter_context(_service(settings, build, serve=serve, work=work))
        ending = stack.enter_context(end_on_signal())
        http = _listen(settings, service, serve=serve)
        hung = _end_where_a_call_hangs(settings, service, ending) if work and not serve else threading.Event()
        if work:
            with remembered_database():
                service.start()
        say(_what_it_does(settings, http, serve=serve, work=work))
        if http is not None:
            http.run(_once_nobody_asks(service, ending))
        else:
            _wait(ending)
        LOG.info("ending")
        if hung.is_set():
            raise CommandFailed(ExitCode.HANGS, "a call to a platform hangs; the work was handed on, start this anew")


def _once_nobody_asks(service: Service, ending: threading.Event) -> threading.Event:
    """An event some seconds after the end was asked for, where a balancer looks at the readiness: it has to notice."""
    ended = threading.Event()

    def wait() -> None:
        _wait(ending)
        if service.readiness.end():
            LOG.info("no more ready; ending in %.0f s, when balancers have noticed", _NOTICED_SECONDS)
            time.sleep(_NOTICED_SECONDS)
        ended.set()

    threading.Thread(target=wait, name="ending", daemon=True).start()
    return ended


def _wait(ending: threading.Event) -> None:
    # The kernel may hand a signal to any thread, and its handler runs only once this one wakes up.
    while not ending.wait(_LOOK_EVERY):
        pass


def _end_where_a_call_hangs(settings: Settings, service: Service, ending: threading.Event) -> threading.Event:
    """Have a worker end once it has given a call up, after it has handed on what else it does; the event tells of it.

    Only the end of its process ends the thread that hangs. Who serves the API as well stays for the sake of that.
    """
    hung = threading.Event()

    def leave() -> None:
        LOG.error("a call to a platform hangs; handing on what else there is, and ending to be started anew")
        service.engine.leave(settings.engine.hang_seconds)
        ending.set()

    def note() -> None:
        if not hung.is_set():
            hung.set()
            threading.Thread(target=leave, name="leaving", daemon=True).start()

    service.engine.on_abandoned = note
    return hung


def _listen(settings: Settings, service: Service, *, serve: bool) -> HttpServer | None:
    api, worker = settings.api, settings.worker
    if serve:
        return HttpServer(service.wsgi, api.bind_host, api.bind_port, api.threads, api.max_body_size)
    if worker.metrics_bind_port:
        return HttpServer(service.wsgi, worker.metrics_bind_host, worker.metrics_bind_port, 1, api.max_body_size)
    return None


def _what_it_does(settings: Settings, http: HttpServer | None, *, serve: bool, work: bool) -> str:
    if http is not None and serve:
        does = "serves" if work else "accepts"
        asked = settings.api.auth_strategy
        if asked == "token":
            asked += f", in {token_file.path_of(settings.state_dir)}"
        return f"stillframe {does} on {http.address} (authentication: {asked})"
    shown = f", metrics on {http.address}/metrics" if http is not None else ""
    return f"stillframe works off what is accepted{shown}"


@contextmanager
def _service(settings: Settings, build: Callable[..., Service], *, serve: bool, work: bool) -> Iterator[Service]:
    with ExitStack() as stack:
        with usable_settings(), answering_database():
            database = main.open_database(settings)
        if work:
            # Claims are for several workers; a file has one, and nobody else may be at the instances meanwhile.
            stack.enter_context(folder_lock(settings.state_dir, alone=database.is_file))
        with usable_settings(), answering_database():
            service = build(settings, database=database, serve=serve)
        try:
            yield service
        finally:
            started = time.monotonic()
            if not service.stop(_STOP_SECONDS):
                LOG.warning("after %.0f s something still runs; it is resumed", time.monotonic() - started)
                # The interpreter would wait for its threads, and a copy may take hours.
                logging.shutdown()
                failure = sys.exc_info()[1]
                os._exit(ExitCode.OK if failure is None else getattr(failure, "code", ExitCode.FAILED))


@contextmanager
def end_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second signal has its usual effect."""
    ending = threading.Event()
    usual: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _frame: Any) -> None:
        signal.signal(number, usual[number])
        ending.set()

    for number in usual:
        signal.signal(number, note)
    try:
        yield ending
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def reopen_on_hangup() -> Iterator[None]:
    """SIGHUP ends nothing: logrotate and terminals send it. Files of the log are opened anew."""

    def reopen(_number: int, _frame: Any) -> None:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.FileHandler):
                # The next line opens it.
                handler.close()

    before = signal.signal(signal.SIGHUP, reopen)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
