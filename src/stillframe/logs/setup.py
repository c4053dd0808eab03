"""How the log is set up: as the options of oslo.log say, in lines, and in files that nobody else may read."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_log import formatters, log

from stillframe.logs.lines import clean, described, use_lines
from stillframe.posix import private


def set_up_log(conf: cfg.ConfigOpts, chosen: logging.Filter | None = None) -> None:
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
