"""The settings: oslo.config options, read once into frozen values that are passed as arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from oslo_config import cfg
from oslo_log import log

from stillframe import spelling
from stillframe.domain.arguments import Action
from stillframe.domain.errors import InvalidInput
from stillframe.drivers.storage_virtualize.options import ArrayOptions, Options, Strategy
from stillframe.engine.board import JobBoardOptions
from stillframe.options import ARRAY, GROUPS
from stillframe.store.shares import Shares


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How the API is served; `max_body_size` in bytes."""

    bind_host: str
    bind_port: int
    auth_strategy: str
    public_endpoint: str | None
    allowed_hosts: tuple[str, ...]
    metrics_peers: tuple[str, ...]
    max_body_size: int
    max_limit: int
    threads: int
    basic_user_file: str
    basic_grants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the store is."""

    url: str
    sqlite_synchronous: str
    pool_size: int


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How operations are worked on."""

    workers: int
    volume_workers: int
    max_attempts: int
    deadlines: dict[Action, timedelta]
    claim_seconds: float
    hang_seconds: float
    keep_records: timedelta
    janitor_interval: timedelta
    janitor_grace: timedelta


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Where a process that serves no API shows its metrics; port 0: nowhere."""

    metrics_bind_host: str
    metrics_bind_port: int


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Which drivers, and the policy around them; times in seconds."""

    compute: str
    storage: str
    graceful_stop_seconds: float
    attempts: int
    operation_attempts: int
    first_wait: float
    longest_wait: float
    concurrent_calls: int
    instances_dir: Path


@dataclass(frozen=True, slots=True)
class OpenStackSettings:
    """Which cloud's services are used and how long they are waited for, in seconds; logging in to it is in `conf`."""

    region_name: str | None
    interface: str
    patience: float
    revert_patience: float
    reverting_backends: tuple[str, ...]
    quiesce: str
    pause_seconds: float
    reimage: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything, and `conf` for the libraries that read their own options from it (policy, logging, keystone)."""

    state_dir: Path
    api: ApiSettings
    database: DatabaseSettings
    engine: EngineSettings
    limits: Shares
    job_board: JobBoardOptions | None
    worker: WorkerSettings
    drivers: DriverSettings
    openstack: OpenStackSettings
    storage_virtualize: Options
    conf: cfg.ConfigOpts


def new_conf() -> cfg.ConfigOpts:
    """An empty configuration that knows every option of ours and of the logging."""
    conf = cfg.ConfigOpts()
    for group, options in GROUPS:
        conf.register_opts(options, group=group)
    log.register_options(conf)
    # One line for each request to an array would drown everything else.
    conf.set_default("default_log_levels", [*log.get_default_log_levels(), "urllib3=WARN"])
    return conf


def load(config_files: Sequence[str] = (), overrides: Sequence[tuple[str | None, str, object]] = ()) -> Settings:
    """Read the settings from files and overrides (group, option, value); raises `InvalidInput` naming what is wrong."""
    # Before oslo.config reads them, which for some wrong values ends the program.
    spelling.check(config_files or _found_files())
    conf = new_conf()
    try:
        # Files that are named take the place of the default ones, in oslo.config itself.
        arguments = [f"--config-file={path}" for path in config_files]
        conf(arguments, project="stillframe", default_config_files=_found_files(), default_config_dirs=[])
        for group, option, value in overrides:
            conf.set_override(option, value, group=group)
        return _freeze(conf)
    except (cfg.Error, ValueError) as error:
        raise InvalidInput(f"the settings cannot be used: {error}") from None


def _found_files() -> list[str]:
    return [path for path in ("/etc/stillframe/stillframe.conf",) if Path(path).is_file()]


def _freeze(conf: cfg.ConfigOpts) -> Settings:
    state_dir = Path(conf.state_dir).absolute()
    restore = timedelta(seconds=conf.engine.restore_deadline)
    return Settings(
        state_dir=state_dir,
        api=ApiSettings(
            bind_host=conf.bind_host,
            bind_port=conf.bind_port,
            auth_strategy=conf.auth_strategy,
            public_endpoint=conf.public_endpoint.rstrip("/") if conf.public_endpoint else None,
            allowed_hosts=tuple(conf.allowed_hosts),
            metrics_peers=tuple(conf.metrics_peers),
            max_body_size=conf.max_body_size,
            max_limit=conf.max_limit,
            threads=conf.api_threads,
            basic_user_file=conf.http_basic.user_file,
            basic_grants=tuple(conf.http_basic.grants),
        ),
        database=DatabaseSettings(
            url=conf.database.connection or f"sqlite:///{state_dir / 'stillframe.sqlite'}",
            sqlite_synchronous=conf.database.sqlite_synchronous,
            pool_size=conf.database.pool_size,
        ),
        engine=EngineSettings(
            workers=conf.engine.workers,
            volume_workers=conf.engine.volume_workers,
            max_attempts=conf.engine.max_attempts,
            deadlines={
                Action.SNAPSHOT: timedelta(seconds=conf.engine.snapshot_deadline),
                Action.DELETE: timedelta(seconds=conf.engine.delete_deadline),
                Action.RESTORE: restore,
                Action.RETRY: restore,
                Action.ROLLBACK: restore,
            },
            claim_seconds=conf.engine.claim_seconds,
            hang_seconds=conf.engine.hang_seconds,
            keep_records=timedelta(seconds=conf.engine.keep_records),
            janitor_interval=timedelta(seconds=conf.engine.janitor_interval),
            janitor_grace=timedelta(seconds=conf.engine.janitor_grace),
        ),
        limits=Shares(conf.limits.project, conf.limits.host, conf.limits.backend),
        job_board=_job_board(conf.job_board),
        worker=WorkerSettings(conf.worker.metrics_bind_host, conf.worker.metrics_bind_port),
        drivers=DriverSettings(
            compute=conf.drivers.compute,
            storage=conf.drivers.storage,
            graceful_stop_seconds=conf.drivers.graceful_stop_seconds,
            attempts=conf.drivers.attempts,
            operation_attempts=conf.drivers.operation_attempts,
            first_wait=conf.drivers.first_wait,
            longest_wait=conf.drivers.longest_wait,
            concurrent_calls=conf.drivers.concurrent_calls,
            instances_dir=Path(conf.local.instances_dir or state_dir / "instances").absolute(),
        ),
        openstack=OpenStackSettings(
            region_name=conf.openstack.region_name,
            interface=conf.openstack.interface,
            patience=conf.openstack.patience,
            revert_patience=conf.openstack.revert_patience,
            reverting_backends=tuple(conf.openstack.reverting_backends),
            quiesce=conf.openstack.quiesce,
            pause_seconds=conf.openstack.pause_seconds,
            reimage=conf.openstack.reimage,
        ),
        storage_virtualize=_storage_virtualize(conf),
        conf=conf,
    )


def _job_board(group: cfg.ConfigOpts.GroupAttr) -> JobBoardOptions | None:
    if group.backend == "none":
        return None
    return JobBoardOptions(
        backend=group.backend,
        host=group.host,
        port=group.port,
        namespace=group.namespace,
        username=group.username,
        password=group.password,
        database=group.database,
        sentinel=group.sentinel,
        sentinel_fallbacks=tuple(group.sentinel_fallbacks),
        sentinel_username=group.sentinel_username,
        sentinel_password=group.sentinel_password,
        tls=group.tls,
        ca_file=group.ca_file,
        cert_file=group.cert_file,
        key_file=group.key_file,
        timeout=group.timeout,
        look_seconds=group.look_seconds,
    )


def _storage_virtualize(conf: cfg.ConfigOpts) -> Options:
    group = conf.storage_virtualize
    if group.volume_name_template.count("%s") != 1:
        raise ValueError("storage_virtualize.volume_name_template has to contain %s once")
    return Options(
        arrays=tuple(_array(conf, name) for name in group.arrays),
        volume_name_template=group.volume_name_template,
        copy_rate=group.copy_rate,
        clean_rate=group.clean_rate,
        strategy=Strategy(group.copies),
        poll_seconds=group.poll_seconds,
    )


def _array(conf: cfg.ConfigOpts, name: str) -> ArrayOptions:
    section = f"array:{name}"
    conf.register_opts(ARRAY, group=section)
    group = conf[section]
    for option in ("endpoint", "username"):
        if not group[option]:
            raise ValueError(f"[{section}] needs {option}")
    if bool(group.password) == bool(group.password_file):
        raise ValueError(f"[{section}] needs either password or password_file")
    return ArrayOptions(
        name=name,
        endpoint=group.endpoint,
        username=group.username,
        password=group.password,
        password_file=Path(group.password_file) if group.password_file else None,
        ca_file=Path(group.ca_file) if group.ca_file else None,
        verify_tls=group.verify_tls,
        timeout=group.timeout,
        commands_a_second=group.commands_a_second,
        shared_folder=Path(conf.state_dir).absolute() / "arrays",
    )
