"""The log: how it is set up, what its lines say about whose sake they were written for, and that they are lines."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_context import context
from oslo_log import formatters, log

from stillframe import private
from stillframe.lines import clean, described, use_lines


def set_up(conf: cfg.ConfigOpts, chosen: logging.Filter | None = None) -> None:
    """Log as the options of oslo.log say, and of that only what `chosen` lets through.

    The standard output is for the one line that is meant for it; oslo.log would take it for the log.
    """
    if not (conf.log_file or conf.log_dir or conf.use_journal):
        conf.set_default("use_stderr", True)
    log.setup(conf, "stillframe")
    use_lines()
    for handler in logging.getLogger().handlers:
        if chosen is not None:
            handler.addFilter(chosen)
        if isinstance(handler, logging.FileHandler):
            _make_private(handler)
        # JSON writes everything out by itself.
        if type(handler.formatter) is formatters.ContextFormatter:
            handler.setFormatter(
                ContextLines(project="stillframe", version="unknown", datefmt=conf.log_date_format, config=conf)
            )


def _make_private(handler: logging.FileHandler) -> None:
    """Let nobody else read the file; nor those that are begun when it has been moved away."""
    handler._builtin_open = partial(open, opener=private.opener)  # type: ignore[attr-defined]  # noqa: SLF001
    private.make_file(Path(handler.baseFilename))


class ContextLines(formatters.ContextFormatter):
    """The lines that oslo.log writes, see `Lines`."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the library's name
        """See `logging.Formatter`."""
        return str(super().formatMessage(clean(record)))

    def formatException(self, ei: Any, *, record: logging.LogRecord | None = None) -> str:  # noqa: N802  # as above
        """See `logging.Formatter`: with the prefix that the options of oslo.log name."""
        text = described(ei)
        if record is None:
            return text
        record.asctime = self.formatTime(record, self.datefmt)
        self._compute_iso_time(record)
        prefix = self.conf.logging_exception_prefix % vars(clean(record))
        return "\n".join(prefix + line for line in text.split("\n"))


class _Context(context.RequestContext):
    """A context of oslo.log's that says more than whose request it was."""

    def __init__(self, request_id: str | None, operation_id: str | None, within: context.RequestContext | None) -> None:
        super().__init__(overwrite=False)
        self._request_id = request_id
        self._operation_id = operation_id
        self._within = within

    def to_dict(self) -> dict[str, Any]:
        """See `RequestContext`."""
        known = super().to_dict() if self._within is None else self._within.to_dict()
        # Where it is given none, the library makes up a request id, which would be nobody's.
        return {**known, "request_id": self._request_id, "operation_id": self._operation_id}


@contextmanager
def about(request_id: str, operation_id: str | None = None) -> Iterator[None]:
    """Let the lines that this thread logs in the block say which request and operation they are about."""
    within = context.get_current()
    before = within or _Context(None, None, None)
    _Context(request_id, operation_id, within).update_store()
    try:
        yield
    finally:
        before.update_store()
