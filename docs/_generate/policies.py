"""The policy, from its table and from what its enforcer decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oslo_policy import opts, policy

from _generate.tables import table
from stillframe.service.caller import Caller
from stillframe.service.policy import RULES, Policy
from stillframe.settings import new_conf

if TYPE_CHECKING:
    from collections.abc import Iterator

# The order in which a role of a persona brings others along.
_PERSONAS: Final = {
    "reader": frozenset({"reader"}),
    "member": frozenset({"member", "reader"}),
    "admin": frozenset({"admin", "member", "reader"}),
}


def page() -> Iterator[str]:
    yield "# Policy"
    yield ""
    yield "Who may do what, as it is without a policy file. *own* means in the caller's project, *all* in every"
    yield "project, *-* not at all. A thing of another project is answered with 404, as if it were not there."
    yield ""
    conf = new_conf()
    conf([], project="stillframe", default_config_files=[], default_config_dirs=[], use_env=False)
    # An operator's own policy file on this machine is not to be documented.
    opts.set_defaults(conf, policy_file="/nowhere/policy.yaml", policy_dirs=["/nowhere"])
    enforcer = Policy(conf)
    documented = [rule for rule in RULES if isinstance(rule, policy.DocumentedRuleDefault)]
    rows = [
        (f"`{rule.name}`", rule.description, *(_allowed(enforcer, rule.name, roles) for roles in _PERSONAS.values()))
        for rule in documented
    ]
    yield from table(("Rule", "Allows to", *_PERSONAS), rows)
    yield "## Rules as they are written"
    yield ""
    yield "A policy file overrides any of them by name."
    yield ""
    written = ((f"`{rule.name}`", f"`{rule.check_str}`", _asked_by(rule)) for rule in RULES)
    yield from table(("Rule", "Check", "Request"), written)


def _allowed(enforcer: Policy, rule: str, roles: frozenset[str]) -> str:
    caller = Caller(user_id="somebody", project_id="own", roles=roles, request_id="")
    if enforcer.allows(caller, rule, "other"):
        return "all"
    return "own" if enforcer.allows(caller, rule, "own") else "-"


def _asked_by(rule: policy.RuleDefault) -> str:
    operations = getattr(rule, "operations", ())
    return "<br>".join(f"`{one['method']} {one['path']}`" for one in operations) or "used by the other rules"
