"""What the settings may say: each group, option and value has to be one that something reads, or nothing starts.

oslo.config ignores what it does not know, and reads the options of a library when the library asks for them. A
misspelt option would leave its default in force, and a wrong value would be found out in the middle of a request.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from oslo_config import cfg, iniparser, types

from stillframe.domain.errors import InvalidInput
from stillframe.domain.printable import printable
from stillframe.settings.groups import Group

_DEFAULT: Final = "DEFAULT"
# Keystonemiddleware reads from it, and keystoneauth as from those of drivers that log in.
_TOKENS: Final = "keystone_authtoken"
# Some variables are the command line's own (OS_AUTH_URL); those of settings have two strokes in the middle.
_VARIABLE: Final = re.compile(r"OS_([A-Z0-9_:]+?)__([A-Z0-9_]+)")
_COMMENT: Final = re.compile(r"\s[#;]")

Options = Mapping[str, cfg.Opt]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of a file, or one variable; `option` is empty for a group's own line."""

    group: str
    option: str
    value: str
    where: str

    def __str__(self) -> str:
        return f"{printable(self.option)} in [{printable(self.group)}] ({printable(self.where)})"


def check(files: Iterable[str], groups: Sequence[Group], environment: Mapping[str, str] = os.environ) -> None:
    """Raises `InvalidInput` for what nothing would read, naming the nearest that is read, and for values of no use."""
    entries = [entry for path in files for entry in _lines(path)]
    known = _Known(groups, [*entries, *_variables(environment, ())])
    for entry in (*entries, *_variables(environment, known.groups())):
        options = known.options(entry.group)
        if options is None:
            raise InvalidInput(_unknown_group(entry, known))
        if not entry.option:
            continue
        if entry.option not in options:
            raise InvalidInput(_unknown_option(entry, options, known))
        _check_value(entry, options[entry.option])


class _Lines(cfg.ConfigParser):
    def __init__(self, path: str) -> None:
        super().__init__(path, {})
        self.entries: list[_Entry] = []

    def new_section(self, section: str) -> None:
        super().new_section(section)
        self.entries.append(_Entry(_normalized(section), "", "", self.filename))

    def assignment(self, key: str, value: list[str]) -> None:
        super().assignment(key, value)
        self.entries.append(_Entry(_normalized(str(self.section)), key, "\n".join(value), self.filename))


def _lines(path: str) -> Sequence[_Entry]:
    parser = _Lines(path)
    try:
        parser.parse()
    except iniparser.ParseError as error:
        raise InvalidInput(f"{printable(str(error))}.") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it has to be UTF-8 text"
        raise InvalidInput(f"{printable(path)} cannot be read: {why}.") from None
    return parser.entries


def _normalized(group: str) -> str:
    # As oslo.config itself takes them: only [DEFAULT] has to be written as it is.
    return group if group == _DEFAULT else group.lower()


def _variables(environment: Mapping[str, str], groups: Iterable[str]) -> Iterator[_Entry]:
    """The variables that are settings; those of other programs are told by a group that is like none of `groups`."""
    names = {group.upper(): group for group in groups}
    for variable, value in sorted(environment.items()):
        found = _VARIABLE.fullmatch(variable)
        if found is None:
            continue
        written, option = found[1], found[2].lower()
        if not names or written in names:
            yield _Entry(names.get(written, _normalized(written)), option, value, variable)
        elif difflib.get_close_matches(written, names, 1, cutoff=0.8):
            yield _Entry(written.lower(), option, value, variable)


class _Known:
    """Every option that something reads, by group; those of a library are looked up where its group is used."""

    def __init__(self, groups: Sequence[Group], entries: Sequence[_Entry]) -> None:
        self._given = {(entry.group, entry.option): entry.value for entry in entries}
        self._ours = {one.name or _DEFAULT: list(one.options) for one in groups if one.named_by is None}
        self._ours[_DEFAULT] += _options_of_the_log()
        self._named = [one for one in groups if one.named_by is not None]
        for one in self._named:
            self._ours |= {_normalized(one.section(name)): list(one.options) for name in self._names(one)}
        self._former = _former(groups)
        self._auth = (*(one.name for one in groups if one.login and one.name), _TOKENS)
        self._logins = {_normalized(self._value(group, "auth_section") or group) for group in self._auth}
        self._found: dict[str, Options | None] = {}

    def groups(self) -> list[str]:
        """The names of all groups, those of earlier releases too."""
        return sorted({*self._ours, *self._former, *_LIBRARIES, *self._auth, *self._logins})

    def options(self, group: str) -> Options | None:
        """The options of a group by each name that they go by; none if there is no such group."""
        if group not in self._found:
            self._found[group] = _by_name(self._list(group), group) if group in self.groups() else None
        return self._found[group]

    def elsewhere(self, option: str) -> list[str]:
        """The groups of ours that have an option of this name."""
        return [group for group, options in self._ours.items() if any(one.dest == option for one in options)]

    def unnamed(self, group: str) -> str | None:
        """Why a group is none that looks like one of those that are named elsewhere."""
        for one in self._named:
            if one.named_by is not None and group.startswith(one.section("")):
                naming, option = one.named_by
                return f"{option} in [{naming}] does not name '{printable(group.removeprefix(one.section('')))}'."
        return None

    def _names(self, group: Group) -> list[str]:
        named = self._value(*group.named_by) if group.named_by is not None else ""
        return [name.strip() for name in named.split(",") if name.strip()]

    def _value(self, group: str, option: str) -> str:
        return self._given.get((group, option), "")

    def _list(self, group: str) -> Iterator[cfg.Opt]:
        yield from self._ours.get(group, ())
        yield from self._former.get(group, ())
        if group in _LIBRARIES:
            yield from _LIBRARIES[group]()
        if group in self._auth:
            yield from _ways_to_log_in(group)
        if group in self._logins:
            plugin = self._value(group, "auth_type") or self._value(group, "auth_plugin")
            yield from _options_of_plugin(plugin, group)


def _former(groups: Iterable[Group]) -> Mapping[str, Sequence[cfg.Opt]]:
    """What was read from groups that have another name now."""
    found: dict[str, list[cfg.Opt]] = {}
    for one in groups:
        for option in one.options:
            for older in option.deprecated_opts:
                if older.group not in (None, one.name):
                    found.setdefault(older.group, []).append(option)
    return found


def _by_name(options: Iterable[cfg.Opt], group: str) -> Options:
    found: dict[str, cfg.Opt] = {}
    for option in options:
        older = [str(one.name) for one in option.deprecated_opts if one.group in (None, group)]
        found.update(dict.fromkeys((option.dest, option.name, *older), option))
    return found


def _options_of_the_log() -> list[cfg.Opt]:
    from oslo_log import _options  # noqa: PLC0415  # registered already

    return [option for _, options in _options.list_opts() for option in options]


def _policy() -> Iterable[cfg.Opt]:
    from oslo_policy import opts  # noqa: PLC0415  # imported where its group is used

    return [option for _, options in opts.list_opts() for option in options]


def _proxy() -> Iterable[cfg.Opt]:
    from oslo_middleware import http_proxy_to_wsgi  # noqa: PLC0415  # as above

    return list(http_proxy_to_wsgi.OPTS)


def _health() -> Iterable[cfg.Opt]:
    from oslo_middleware import opts  # noqa: PLC0415  # as above

    return [option for _, options in opts.list_opts_healthcheck() for option in options]


# Other options of these libraries, which nothing here reads, are none.
_LIBRARIES: Final = {"oslo_policy": _policy, "oslo_middleware": _proxy, "healthcheck": _health}


def _ways_to_log_in(group: str) -> Iterator[cfg.Opt]:
    from keystoneauth1 import loading  # noqa: PLC0415  # as above

    if group == _TOKENS:
        from keystonemiddleware import opts  # noqa: PLC0415  # as above

        for _, options in opts.list_auth_token_opts():
            yield from options
    else:
        yield from loading.get_auth_common_conf_options()
        yield from loading.get_session_conf_options()


def _options_of_plugin(name: str, group: str) -> Iterator[cfg.Opt]:
    from keystoneauth1 import exceptions, loading  # noqa: PLC0415  # as above

    yield from loading.get_auth_common_conf_options()
    if not name:
        return
    try:
        loader: Any = loading.get_plugin_loader(name)
    except exceptions.NoMatchingPlugin:
        nearest = _nearest(name, loading.get_available_plugin_names())
        raise InvalidInput(f"There is no plugin '{printable(name)}' for auth_type in [{group}]{nearest}") from None
    yield from loading.get_auth_plugin_conf_options(loader)


def _unknown_group(entry: _Entry, known: _Known) -> str:
    told = f"[{printable(entry.group)}] ({printable(entry.where)})"
    unnamed = known.unnamed(entry.group)
    if unnamed is not None:
        return f"{told} is of no use: {unnamed}"
    return f"There is no group {told}{_nearest(entry.group, known.groups(), '[{}]')}"


def _unknown_option(entry: _Entry, options: Options, known: _Known) -> str:
    elsewhere = known.elsewhere(entry.option)
    if elsewhere:
        return f"There is no option {entry}; it belongs into [{elsewhere[0]}]."
    return f"There is no option {entry}{_nearest(entry.option, [one.dest for one in options.values()])}"


def _nearest(word: str, words: Iterable[str], form: str = "{}") -> str:
    lower = {one.lower(): one for one in words}
    found = difflib.get_close_matches(word.lower(), lower, 1, cutoff=0.5)
    return f"; did you mean {form.format(lower[found[0]])}?" if found else "; leave it out."


def _check_value(entry: _Entry, option: cfg.Opt) -> None:
    if not option.secret and _COMMENT.search(entry.value):
        raise InvalidInput(f"{entry} has a comment behind its value: put the comment on a line of its own.")
    if "$" in entry.value:
        return  # it stands for another option, and oslo.config looks at what comes of that
    try:
        option.type(entry.value)
    except ValueError as error:
        shown = "" if option.secret else f", not '{printable(entry.value)}'"
        raise InvalidInput(f"{entry} has to be {_expected(option.type, error)}{shown}.") from None


def _expected(kind: Any, error: ValueError) -> str:
    choices = getattr(kind, "choices", None)
    if choices:
        return f"one of {', '.join(map(str, choices))}"
    if isinstance(kind, types.Boolean):
        return "true or false"
    if isinstance(kind, types.Number):
        return ("a whole number" if isinstance(kind, types.Integer) else "a number") + _between(kind.min, kind.max)
    if isinstance(kind, types.URI):
        return f"a URL that begins with {' or '.join(f'{one}://' for one in kind.schemes or ('https',))}"
    if isinstance(kind, types.HostAddress):
        return "an address or the name of a host"
    return f"something else ({printable(str(error))})"


def _between(low: float | None, high: float | None) -> str:
    if high is not None:
        return f" from {low:g} to {high:g}"
    return f", {low:g} or more" if low is not None else ""
