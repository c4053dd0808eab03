"""The settings: oslo.config options, read once into frozen values that are passed as arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from oslo_config import cfg
from oslo_log import log

from stillframe.domain.errors import InvalidInput
from stillframe.domain.operation import Action
from stillframe.drivers.storage_virtualize.options import ArrayOptions, Options, Strategy
from stillframe.engine.board import JobBoardOptions
from stillframe.store.queue import Shares

_DEFAULT: Final = [
    cfg.StrOpt("state_dir", default="/var/lib/stillframe", help="Folder for everything the service keeps."),
    cfg.HostAddressOpt("bind_host", default="127.0.0.1", help="Address to listen on."),
    cfg.PortOpt("bind_port", default=8790, help="Port to listen on."),
    cfg.StrOpt(
        "auth_strategy",
        default="noauth",
        choices=[
            ("keystone", "tokens, checked by keystonemiddleware"),
            ("http_basic", "users of an htpasswd file, see [http_basic]"),
            ("noauth", "everybody is who they say; only on a loopback address"),
        ],
        help="How callers prove who they are.",
    ),
    cfg.URIOpt(
        "public_endpoint",
        schemes=["http", "https"],
        help="What task URIs start with; without it they are built from the request.",
    ),
    cfg.IntOpt("max_body_size", default=65536, min=1024, help="Longest accepted request body, in bytes."),
    cfg.IntOpt("max_limit", default=1000, min=1, help="Most items on one page of a list."),
    cfg.IntOpt("api_threads", default=16, min=1, help="Requests handled at a time."),
]
_DATABASE: Final = [
    cfg.StrOpt(
        "connection",
        secret=True,
        help="SQLAlchemy URL; without it an SQLite file in state_dir. PostgreSQL: postgresql+psycopg://..., "
        "MariaDB: mariadb+pymysql://...",
    ),
    cfg.StrOpt(
        "sqlite_synchronous",
        default="FULL",
        choices=["NORMAL", "FULL"],
        help="NORMAL survives a killed process, FULL a power loss too.",
    ),
    cfg.IntOpt("pool_size", default=20, min=2, help="Connections kept open for reading."),
]
_ENGINE: Final = [
    cfg.IntOpt("workers", default=8, min=1, help="Operations worked on at a time."),
    cfg.IntOpt("volume_workers", default=16, min=1, help="Volumes restored at a time, over all operations."),
    cfg.IntOpt("max_attempts", default=10, min=1, help="Times an operation is taken up again before it is given up."),
    cfg.IntOpt("snapshot_deadline", default=3600, min=1, help="Seconds until a snapshot fails."),
    cfg.IntOpt("delete_deadline", default=86400, min=1, help="Seconds until a deletion fails."),
    cfg.IntOpt("restore_deadline", default=86400, min=1, help="Seconds until a restore, retry or rollback fails."),
    cfg.FloatOpt(
        "claim_seconds",
        default=30,
        min=1,
        help="How long a worker's claim on an operation holds without being renewed: so long after a worker's death "
        "another one takes its operations up.",
    ),
    cfg.IntOpt("keep_records", default=604800, min=0, help="Seconds that the record of a finished operation is kept."),
    cfg.IntOpt(
        "janitor_interval",
        default=3600,
        min=0,
        help="Seconds between two rounds of the janitor, which removes leftovers that are certainly ours and of use to "
        "nobody; 0 is never. It tells them by the records of operations, so keep_records has to be much longer.",
    ),
    cfg.IntOpt(
        "janitor_grace",
        default=3600,
        min=0,
        help="Seconds that an operation has to be over before what it left is a leftover.",
    ),
]
_WORKER: Final = [
    cfg.HostAddressOpt(
        "metrics_bind_host",
        default="127.0.0.1",
        help="Address that 'stillframe worker' serves /metrics and /healthcheck on, without asking for credentials.",
    ),
    cfg.PortOpt(
        "metrics_bind_port", default=0, help="Port for them; 0 is none. Each worker of a machine needs its own."
    ),
]
_LIMITS: Final = [
    cfg.IntOpt("project", default=0, min=0, help="Operations of one project at a time; 0 is no limit."),
    cfg.IntOpt("host", default=0, min=0, help="Operations on instances of one host at a time; 0 is no limit."),
    cfg.IntOpt("backend", default=0, min=0, help="Operations on volumes of one back end at a time; 0 is no limit."),
]
_JOB_BOARD: Final = [
    cfg.StrOpt(
        "backend",
        default="none",
        choices=[
            ("none", "workers look into the database every second"),
            ("redis", "TaskFlow's job board on Redis or Valkey"),
            ("etcd", "TaskFlow's job board on etcd 3"),
        ],
        help="What tells workers that there is something to do.",
    ),
    cfg.HostAddressOpt("host", default="127.0.0.1", help="Where its server is; with `sentinel` the first sentinel."),
    cfg.PortOpt("port", help="Its port; without it the usual one: 6379, 26379 for a sentinel, 2379 for etcd."),
    cfg.StrOpt("namespace", default="stillframe", help="What its keys begin with: one for each database."),
    cfg.StrOpt("username", help="Who the service is there (Redis)."),
    cfg.StrOpt("password", secret=True, help="The password (Redis)."),
    cfg.IntOpt("database", default=0, min=0, help="The number of the database (Redis)."),
    cfg.StrOpt("sentinel", help="Name of the service that sentinels watch over; without it there are none (Redis)."),
    cfg.ListOpt("sentinel_fallbacks", default=[], help="More sentinels, each HOST:PORT (Redis)."),
    cfg.StrOpt("sentinel_username", help="Who the service is at the sentinels (Redis)."),
    cfg.StrOpt("sentinel_password", secret=True, help="The password there (Redis)."),
    cfg.BoolOpt("tls", default=False, help="Whether the connection is encrypted."),
    cfg.StrOpt("ca_file", help="The authority of the server's certificate, in PEM."),
    cfg.StrOpt("cert_file", help="The service's own certificate, in PEM."),
    cfg.StrOpt("key_file", help="Its key, in PEM."),
    cfg.FloatOpt("timeout", default=10, min=0.1, help="Seconds to wait for an answer."),
    cfg.FloatOpt(
        "look_seconds",
        default=5,
        min=0.1,
        help="Seconds after which workers look into the database themselves, whatever the board says.",
    ),
]
_DRIVERS: Final = [
    cfg.StrOpt("compute", default="local", help="What runs the instances: local, nova, memory."),
    cfg.StrOpt("storage", default="local", help="What holds the volumes: local, cinder, storage_virtualize, memory."),
    cfg.FloatOpt("graceful_stop_seconds", default=60, min=0, help="How long a guest may take to shut down by itself."),
    cfg.IntOpt(
        "attempts",
        default=5,
        min=1,
        help="Tries of a call of a request, whose answer somebody waits for, while the platform behind is unavailable; "
        "and of a cut, each of which holds the guest still.",
    ),
    cfg.IntOpt(
        "operation_attempts",
        default=20,
        min=1,
        help="The same for calls of an operation, at whose end nobody waits: with the other defaults seven minutes.",
    ),
    cfg.FloatOpt("first_wait", default=0.5, min=0, help="Seconds before the second try; it doubles from there."),
    cfg.FloatOpt("longest_wait", default=30, min=0, help="Most seconds between two tries."),
    cfg.IntOpt("concurrent_calls", default=32, min=1, help="Calls that work on volumes at a time."),
]
_LOCAL: Final = [
    cfg.StrOpt("instances_dir", help="Folder of the instance declarations; without it `instances` in state_dir."),
]
_OPENSTACK: Final = [
    cfg.StrOpt("region_name", help="Region of the cloud whose Nova and Cinder are used; without it the only one."),
    cfg.StrOpt("interface", default="internal", help="Endpoints of the catalogue that are used: internal or public."),
    cfg.FloatOpt("patience", default=900, min=1, help="Seconds that Cinder may take for one snapshot or its deletion."),
    cfg.FloatOpt(
        "revert_patience",
        default=14400,
        min=1,
        help="Seconds until a revert that neither ends nor fails counts as lost with the cinder-volume that ran it.",
    ),
    cfg.ListOpt(
        "reverting_backends",
        default=[],
        help="Names (volume_backend_name) of Cinder's back ends whose drivers revert by themselves although they "
        "report sparse copies; without being named here, they are not trusted to.",
    ),
    cfg.StrOpt(
        "quiesce",
        default="none",
        choices=[
            ("none", "a server that runs goes on while its volumes are cut"),
            ("pause", "Nova pauses it for as long as Cinder takes for cutting all of them"),
        ],
        help="How a running server with several volumes is held still for a cut.",
    ),
    cfg.FloatOpt(
        "pause_seconds",
        default=30,
        min=1,
        help="Most seconds that a server stays paused. It is let run then, and the snapshot fails.",
    ),
    cfg.BoolOpt(
        "reimage",
        default=True,
        help="Where neither our extension nor Cinder's own revert will do: copy the whole snapshot over the volume "
        "by os-reimage.",
    ),
]
_STORAGE_VIRTUALIZE: Final = [
    cfg.ListOpt("arrays", default=[], help="Names of the arrays. Each has a group of its own, `[array:NAME]`."),
    cfg.StrOpt(
        "volume_name_template",
        default="volume-%s",
        help="What Cinder names its volumes on the arrays, `%s` being the volume's id: Cinder's option of this name.",
    ),
    cfg.IntOpt(
        "copy_rate",
        default=100,
        min=1,
        max=150,
        help="Rate of a restore as the array counts it: 50 is 2 MB/s, 100 is 64 MB/s, 150 is 2 GB/s for each volume.",
    ),
    cfg.IntOpt(
        "clean_rate",
        default=50,
        min=1,
        max=150,
        help="Rate at which a copy that is deleted hands on what older copies read through it; as copy_rate.",
    ),
    cfg.StrOpt(
        "copies",
        default=Strategy.FLASHCOPY.value,
        choices=[
            (Strategy.FLASHCOPY.value, "mappings to volumes of their own, in a consistency group"),
            (Strategy.SNAPSHOTS.value, "snapshots of the array itself, from code level 8.6.2 on"),
            (
                Strategy.AUTO.value,
                "snapshots where the code level has them and none of the volumes has mappings, else mappings",
            ),
        ],
        help="By which kind of copy volumes are cut.",
    ),
    cfg.FloatOpt(
        "poll_seconds", default=1.0, min=0.01, max=1.0, help="Seconds between two looks at a copy's progress."
    ),
]
#: The options of each `[array:NAME]`.
ARRAY: Final = [
    cfg.URIOpt("endpoint", schemes=["https"], help="Where its REST API is, such as https://array.example.org:7443."),
    cfg.StrOpt("username", help="Who the service is there; its role has to allow making volumes and mappings."),
    cfg.StrOpt("password", secret=True, help="The password, unless `password_file` has it."),
    cfg.StrOpt("password_file", help="A file that holds nothing but the password; read at each sign-in."),
    cfg.StrOpt("ca_file", help="The authority of its certificate, in PEM; without it the ones this machine trusts."),
    cfg.BoolOpt("verify_tls", default=True, help="Whether its certificate is looked at. Do not switch that off."),
    cfg.FloatOpt("timeout", default=30, min=0.1, help="Seconds to wait for one answer."),
]
_HTTP_BASIC: Final = [
    cfg.StrOpt("user_file", default="/etc/stillframe/htpasswd", help="htpasswd file with bcrypt hashes."),
    cfg.ListOpt(
        "grants",
        default=[],
        help="What its users may do, each USER:PROJECT:ROLE with a role of reader, member, admin. "
        "A user's project is that of its first grant unless the request's path names another of its projects.",
    ),
]

GROUPS: Final = (
    (None, _DEFAULT),
    ("database", _DATABASE),
    ("engine", _ENGINE),
    ("limits", _LIMITS),
    ("job_board", _JOB_BOARD),
    ("worker", _WORKER),
    ("drivers", _DRIVERS),
    ("local", _LOCAL),
    ("openstack", _OPENSTACK),
    ("http_basic", _HTTP_BASIC),
    ("storage_virtualize", _STORAGE_VIRTUALIZE),
)


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How the API is served; `max_body_size` in bytes."""

    bind_host: str
    bind_port: int
    auth_strategy: str
    public_endpoint: str | None
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
    conf.set_default("default_log_levels", [*log.get_default_log_levels(), "httpx=WARN", "httpcore=WARN"])
    return conf


def load(config_files: Sequence[str] = (), overrides: Sequence[tuple[str | None, str, object]] = ()) -> Settings:
    """Read the settings from files and overrides (group, option, value); raises `InvalidInput` naming what is wrong."""
    conf = new_conf()
    try:
        # Files that are named take the place of the default ones, in oslo.config itself.
        arguments = [f"--config-file={path}" for path in config_files]
        conf(arguments, project="stillframe", default_config_files=_found_files(), default_config_dirs=[])
        for group, option, value in overrides:
            conf.set_override(option, value, group=group)
        return _freeze(conf)
    except (cfg.Error, ValueError) as error:
        raise InvalidInput(f"the settings cannot be used: {error}") from error


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
    )
