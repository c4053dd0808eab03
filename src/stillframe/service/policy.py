"""The policy table: who may do what, by OpenStack's personas reader, member and admin."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, Final

from oslo_config import cfg
from oslo_policy import policy

from stillframe import paths
from stillframe.domain.errors import Forbidden, InvalidInput
from stillframe.domain.printable import printable
from stillframe.paths import CINDER, NOVA
from stillframe.service.caller import Caller
from stillframe.service.policy_files import POLICY_FILE, check_rules, policy_files, require_files

LOG = logging.getLogger(__name__)

_READER: Final = "rule:admin or (role:reader and rule:owner)"
_MEMBER: Final = "rule:admin or (role:member and rule:owner)"

_ACTION: Final[dict[str, Any]] = {"method": "POST", "path": NOVA.template(paths.SERVER_ACTION)}


def _rule(name: str, check: str, description: str, *operations: tuple[str, str]) -> policy.DocumentedRuleDefault:
    paths: Any = [{"method": method, "path": path} for method, path in operations] or [_ACTION]
    return policy.DocumentedRuleDefault(name, check, description, paths)


RULES: Final = (
    policy.RuleDefault("admin", "role:admin", "May do everything in all projects."),
    policy.RuleDefault("owner", "project_id:%(project_id)s", "Acts in the project that owns the thing."),
    _rule(
        "snapshot:list",
        _READER,
        "List instance snapshots and their volume snapshots.",
        ("GET", CINDER.template(paths.SNAPSHOTS)),
        ("GET", CINDER.template(paths.VOLUME_SNAPSHOTS)),
    ),
    _rule(
        "snapshot:list_all_projects",
        "rule:admin",
        "List those of all projects.",
        ("GET", CINDER.template(paths.SNAPSHOTS)),
    ),
    _rule(
        "snapshot:show",
        _READER,
        "Show an instance snapshot or one of its volume snapshots.",
        ("GET", CINDER.template(paths.SNAPSHOT)),
        ("GET", CINDER.template(paths.VOLUME_SNAPSHOT)),
    ),
    _rule("snapshot:progress", _READER, "Watch an operation.", ("GET", CINDER.template(paths.PROGRESS))),
    _rule("snapshot:create", _MEMBER, "Take an instance snapshot."),
    _rule("snapshot:update", _MEMBER, "Rename an instance snapshot.", ("PUT", CINDER.template(paths.SNAPSHOT))),
    _rule("snapshot:delete", _MEMBER, "Delete an instance snapshot.", ("DELETE", CINDER.template(paths.SNAPSHOT))),
    _rule("snapshot:restore", _MEMBER, "Restore an instance to a snapshot."),
    _rule("snapshot:retry", _MEMBER, "Retry the volumes whose restore failed."),
    _rule("snapshot:rollback", _MEMBER, "Put all volumes back to their safety copies."),
    _rule(
        "instance:show",
        _READER,
        "List and show instances and the volumes attached to them.",
        ("GET", NOVA.template(paths.SERVERS)),
        ("GET", NOVA.template(paths.ATTACHMENTS)),
    ),
    _rule("instance:power", _MEMBER, "Start and stop an instance."),
    _rule("volume:show", _READER, "List and show volumes.", ("GET", CINDER.template(paths.VOLUMES))),
    _rule(
        "volume:flashcopy",
        _MEMBER,
        "Check a volume's FlashCopy mappings.",
        ("POST", CINDER.template(paths.VOLUME_ACTION)),
    ),
    _rule("worker:list", "rule:admin", "List workers.", ("GET", CINDER.template(paths.SERVICES))),
)


class Policy:
    """The rules above, as overridden by the operator's policy files.

    Changes of the files count at once. Where they cannot be used, the rules from before stay in force, and the log
    says why.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._enforcer = _new_enforcer(conf)
        self._version: object = None
        self._usable = True
        self._guard = threading.Lock()

    def load(self) -> None:
        """Read the policy files now; raises `InvalidInput` for what cannot be used, or would do nothing."""
        version = self._look()
        self._enforcer, self._version = _loaded(self._conf), version

    def usable(self) -> bool:
        """Whether the policy files can be used as they are now; if not, the rules from before are in force."""
        self._follow()
        return self._usable

    def allows(self, caller: Caller, rule: str, project_id: str) -> bool:
        """Whether the caller may act by `rule` on something that `project_id` owns."""
        self._follow()
        credentials: dict[str, Any] = {
            "user_id": caller.user_id,
            "project_id": caller.project_id,
            "roles": sorted(caller.roles),
        }
        return bool(self._enforcer.enforce(rule, {"project_id": project_id}, credentials))

    def require(self, caller: Caller, rule: str, project_id: str) -> None:
        """Raises `Forbidden` unless the rule allows it."""
        if not self.allows(caller, rule, project_id):
            raise Forbidden(f"Policy does not allow '{rule}' to be performed with the roles of this user.")

    def _follow(self) -> None:
        version = self._look()
        with self._guard:
            if version == self._version:
                return
            # Once for each change, whatever comes of it.
            self._version = version
            try:
                self._enforcer, self._usable = _loaded(self._conf), True
            except InvalidInput as error:
                self._usable = False
                LOG.error("the policy files have changed, and the rules from before stay in force: %s", error)  # noqa: TRY400

    def _look(self) -> object:
        """What tells one state of the files from another."""
        return [(path, _state(path)) for path in policy_files(self._conf)]


def _new_enforcer(conf: cfg.ConfigOpts) -> policy.Enforcer:
    enforcer = policy.Enforcer(conf)
    enforcer.suppress_default_change_warnings = True
    # It would only warn; `check_rules` refuses.
    enforcer.skip_undefined_check = True
    enforcer.register_defaults(RULES)
    return enforcer


def _loaded(conf: cfg.ConfigOpts) -> policy.Enforcer:
    enforcer = _new_enforcer(conf)
    require_files(conf)
    try:
        enforcer.load_rules(force_reload=True)
        check_rules(enforcer.file_rules, [rule.name for rule in RULES])
        enforcer.check_rules(raise_on_violation=True)
    except policy.InvalidDefinitionError as error:
        raise InvalidInput(f"rules go round in a circle: {printable(str(error))}", POLICY_FILE) from None
    except (ValueError, OSError, AttributeError, cfg.Error) as error:
        raise InvalidInput(f"the policy file cannot be used: {printable(str(error))}", POLICY_FILE) from None
    # From here on it reads nothing by itself.
    enforcer.use_conf = False
    return enforcer


def _state(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
