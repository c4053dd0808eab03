"""Settings of gunicorn for the API: gunicorn --config deploy/gunicorn.conf.py 'stillframe.wsgi:application()'."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from stillframe.logs.lines import Lines


class EscapedLogger(Logger):  # type: ignore[misc]
    """What clients send begins no line of gunicorn's own log either, and moves no cursor."""

    def setup(self, cfg: Any) -> None:
        """See `Logger`."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(Lines(self.error_fmt, self.datefmt))


logger_class = EscapedLogger

bind = "127.0.0.1:8790"
# Handlers wait for the database and the platform, so threads do. One process, for /metrics is that of the one that
# happens to answer, and counters of several in turn look as if they grew: run more of these, on ports of their own.
worker_class = "gthread"
workers = 1
threads = 16
# Each process loads the application for itself: connections to the database must not be shared by a fork.
preload_app = False
# A request to a platform that hangs may take its retries; a process that is stuck for longer is replaced.
timeout = 180
graceful_timeout = 30
# After a change of the settings or of the package: SIGHUP. New processes take the place of the old ones, which finish
# their replies, and the port stays open.
# A thread waits for each request to arrive and for its reply to be taken: never without a proxy in front that does the
# waiting, as deploy/haproxy.cfg does (http-buffer-request).
keepalive = 15
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 16380
# What the service makes is for its owner only.
umask = 0o077
# stillframe decides about proxy headers ([oslo_middleware] enable_proxy_headers_parsing); gunicorn hands them on.
forwarded_allow_ips = "*"
secure_scheme_headers: dict[str, str] = {}
# The application logs each request under its id.
accesslog = None
errorlog = "-"
