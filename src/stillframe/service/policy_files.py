"""The operator's policy files: they have to be there, and nothing in them may be without effect.

oslo.policy takes a file that is missing for none, a rule that nothing asks for as it is, and a check that it cannot
parse for one that nobody passes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from oslo_config import cfg
from oslo_policy import _checks, policy  # the kinds of checks have no public names

from stillframe.domain.errors import InvalidInput
from stillframe.domain.printable import printable

#: What a refusal of a policy file begins with.
POLICY_FILE: Final = "oslo_policy.policy_file"
# What a check may ask about the caller, and about the thing.
_CALLER: Final = frozenset({"user_id", "project_id", "roles"})
_THING: Final = frozenset({"project_id"})
_NOBODY: Final = "!"
_CHOSEN: Final = frozenset({cfg.Locations.user, cfg.Locations.environment, cfg.Locations.set_override})


def policy_files(conf: cfg.ConfigOpts) -> list[Path]:
    """Every file and folder that rules are read from, as far as they are there."""
    group = conf.oslo_policy
    found = [conf.find_file(group.policy_file)] if group.policy_file else []
    folders = [folder for folder in map(conf.find_file, group.policy_dirs) if folder]
    files = [path for folder in folders for path in sorted(Path(folder).glob("*"))]
    return [Path(path) for path in (*found, *folders, *files) if path]


def require_files(conf: cfg.ConfigOpts) -> None:
    """Raises `InvalidInput` for a file or folder that the settings name and that is not there."""
    group = conf.oslo_policy
    for option, names in (("policy_file", [group.policy_file]), ("policy_dirs", group.policy_dirs)):
        where = conf.get_location(option, "oslo_policy")
        if where is None or where.location not in _CHOSEN:
            continue
        for name in names:
            if not conf.find_file(name):
                raise InvalidInput(
                    f"{printable(name)} is not there; write it, or leave the option out", f"oslo_policy.{option}"
                )


def check_rules(rules: Mapping[str, policy.RuleDefault], known: Sequence[str]) -> None:
    """Raises `InvalidInput` for rules of a file that nothing asks for, and for checks that nothing can pass."""
    asked = {*known}
    for rule in rules.values():
        asked |= {check.match for check in _leaves(rule.check) if isinstance(check, policy.RuleCheck)}
    for name, rule in rules.items():
        if name not in asked:
            raise InvalidInput(f"there is no rule '{printable(name)}'{_nearest(name, known)}", POLICY_FILE)
        for check in _leaves(rule.check):
            wrong = _wrong(check, rule.check_str, asked & {*known, *rules})
            if wrong:
                raise InvalidInput(f"the rule '{printable(name)}' cannot be used: {wrong}", POLICY_FILE)


def _leaves(check: Any) -> Iterator[Any]:
    """The checks that a check is put together from."""
    inner = [*getattr(check, "rules", ()), *filter(None, [getattr(check, "rule", None)])]
    if not inner:
        yield check
    for one in inner:
        yield from _leaves(one)


def _wrong(check: Any, text: object, rules: Iterable[str]) -> str:
    """What is wrong with one check; empty if nothing."""
    if isinstance(check, _checks.FalseCheck):
        return "" if str(text).strip() == _NOBODY else f"'{printable(str(text))}' cannot be parsed"
    kind, match = getattr(check, "kind", None), str(getattr(check, "match", ""))
    if isinstance(check, policy.RuleCheck):
        return "" if match in rules else f"there is no rule '{printable(match)}'{_nearest(match, rules)}"
    if not isinstance(check, _checks.GenericCheck):
        return ""
    about = match.removeprefix("%(").removesuffix(")s") if match.startswith("%(") else None
    if about is not None and about not in _THING:
        return f"'{printable(match)}': what is asked for has no '{printable(about)}'{_nearest(about, _THING)}"
    if str(kind).isidentifier() and kind not in _CALLER and kind not in ("True", "False", "None"):
        nearest = _nearest(str(kind), (*_CALLER, "role", "rule"))
        return f"'{printable(f'{kind}:{match}')}': a caller has no '{printable(str(kind))}'{nearest}"
    return ""


def _nearest(word: str, words: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(words), 1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""
