"""The options of the settings file, by group, as oslo.config knows them; what is made of them is in `settings`."""

from __future__ import annotations

from typing import Final

from oslo_config import cfg

from stillframe.drivers.storage_virtualize.options import Strategy

_DEFAULT: Final = [
    cfg.StrOpt("state_dir", default="/var/lib/stillframe", help="Folder for everything the service keeps."),
    cfg.HostAddressOpt("bind_host", default="127.0.0.1", help="Address to listen on."),
    cfg.PortOpt("bind_port", default=8790, help="Port to listen on."),
    cfg.StrOpt(
        "auth_strategy",
        default="token",
        choices=[
            ("token", "the service's own token, made at the first start: `auth/token` in `state_dir`"),
            ("keystone", "tokens, checked by keystonemiddleware"),
            ("http_basic", "users of an htpasswd file, see [http_basic]"),
            ("noauth", "everybody is who they say, other users of the machine and its guests too; only on loopback"),
        ],
        help="How callers prove who they are.",
    ),
    cfg.URIOpt(
        "public_endpoint",
        schemes=["http", "https"],
        help="What task URIs start with; without it they are built from the request.",
    ),
    cfg.ListOpt(
        "allowed_hosts",
        default=[],
        help="More names and addresses, without a port, that the Host header of a request may have. It may always have "
        "`localhost`, a loopback address, `bind_host`, and the host of `public_endpoint`; with `bind_host` 0.0.0.0 or "
        ":: any address.",
    ),
    cfg.ListOpt(
        "metrics_peers",
        default=["127.0.0.0/8", "::1"],
        help="Networks and addresses that may read /metrics where the API is served. They need no credentials there, "
        "and no proxy may be between.",
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
    cfg.FloatOpt(
        "hang_seconds",
        default=300,
        min=1,
        help="How long a call to a platform may hang past the deadline of its operation. Then it is given up and the "
        "instance is free again; 'stillframe worker' hands its other operations on and ends, for its supervisor to "
        "start it anew.",
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
    cfg.StrOpt(
        "interface",
        default="internal",
        choices=["internal", "public", "admin"],
        help="Endpoints of the catalogue that are used.",
    ),
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
    cfg.IntOpt(
        "commands_a_second",
        default=10,
        min=3,
        help="Commands a second that all processes with this `state_dir` give it together; two are kept for cuts.",
    ),
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
