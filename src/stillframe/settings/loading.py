"""Reading the settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oslo_config import cfg
from oslo_log import log

from stillframe.domain.errors import InvalidInput
from stillframe.settings import api, database, drivers, engine, extensions, job_board, limits, spelling, worker
from stillframe.settings.extensions import Extension
from stillframe.settings.groups import Group

LOG = logging.getLogger(__name__)

#: What is there whatever is installed; a group of the documentation each.
GROUPS: Final[Sequence[Group]] = (
    *api.GROUPS,
    database.GROUP,
    engine.GROUP,
    limits.GROUP,
    job_board.GROUP,
    worker.GROUP,
    drivers.GROUP,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything but what drivers read for themselves, and `conf` for them and for libraries (policy, logging)."""

    state_dir: Path
    api: api.ApiSettings
    database: database.DatabaseSettings
    engine: engine.EngineSettings
    limits: limits.OperationLimits
    job_board: job_board.JobBoardOptions | None
    worker: worker.WorkerSettings
    drivers: drivers.DriverSettings
    conf: cfg.ConfigOpts


def new_conf(extensions_: Sequence[Extension] | None = None) -> cfg.ConfigOpts:
    """An empty configuration that knows every option of ours, of the drivers, and of the logging."""
    found = extensions.installed() if extensions_ is None else extensions_
    conf = cfg.ConfigOpts()
    for group in (*GROUPS, *extensions.groups(found)):
        if group.named_by is None:
            conf.register_opts(group.options, group=group.name)
    log.register_options(conf)
    # One line for each request to an array would drown everything else.
    conf.set_default("default_log_levels", [*log.get_default_log_levels(), "urllib3=WARN"])
    return conf


def load(config_files: Sequence[str] = (), overrides: Sequence[tuple[str | None, str, object]] = ()) -> Settings:
    """Read the settings from files and overrides (group, option, value); raises `InvalidInput` naming what is wrong."""
    found = extensions.installed()
    # Before oslo.config reads them, which for some wrong values ends the program.
    spelling.check(config_files or _found_files(), (*GROUPS, *extensions.groups(found)))
    conf = new_conf(found)
    try:
        # Files that are named take the place of the default ones, in oslo.config itself.
        arguments = [f"--config-file={path}" for path in config_files]
        conf(arguments, project="stillframe", default_config_files=_found_files(), default_config_dirs=[])
        _take_former_variables(conf, extensions.groups(found))
        for option_group, option, value in overrides:
            conf.set_override(option, value, group=option_group)
        _register_named(conf, extensions.groups(found))
        settings = _freeze(conf, found)
        for extension in found:
            extension.check(settings)
    except (cfg.Error, ValueError) as error:
        raise InvalidInput(f"The settings cannot be used: {error}") from None
    return settings


def _found_files() -> list[str]:
    return [path for path in ("/etc/stillframe/stillframe.conf",) if Path(path).is_file()]


def _take_former_variables(conf: cfg.ConfigOpts, groups: Iterable[Group]) -> None:
    """oslo.config reads a group's former name from files alone, and not from the environment."""
    for group in groups:
        for option in group.options:
            present = f"OS_{group.name}__{option.dest}".upper()
            for older in option.deprecated_opts:
                variable = f"OS_{older.group or group.name}__{older.name or option.dest}".upper()
                if variable in os.environ and present not in os.environ:
                    LOG.warning("%s is deprecated; its name is %s now", variable, present)
                    conf.set_override(option.dest, os.environ[variable], group=group.name)


def _register_named(conf: cfg.ConfigOpts, groups: Iterable[Group]) -> None:
    for group in groups:
        if group.named_by is not None:
            naming, option = group.named_by
            for name in conf[naming][option]:
                conf.register_opts(group.options, group=group.section(name))


def _freeze(conf: cfg.ConfigOpts, found: Sequence[Extension]) -> Settings:
    state_dir = Path(conf.state_dir).absolute()
    return Settings(
        state_dir=state_dir,
        api=api.read(conf),
        database=database.read(conf, state_dir),
        engine=engine.read(conf),
        limits=limits.read(conf),
        job_board=job_board.read(conf),
        worker=worker.read(conf),
        drivers=drivers.read(conf, found),
        conf=conf,
    )
