"""The settings, from their oslo.config options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from _generate.tables import table
from stillframe.settings import GROUPS, Group
from stillframe.settings.extensions import PORTS, Extension, chosen, groups, installed, names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oslo_config import cfg

_LIBRARIES: Final = (
    ("[DEFAULT]", "oslo.log", "`debug`, `log_file`, `log_dir`, `use_json` and its other options"),
    ("[oslo_policy]", "oslo.policy", "where the policy file is: `policy_file`, `policy_dirs`"),
    ("[oslo_middleware]", "oslo.middleware", "`enable_proxy_headers_parsing`, for a service behind a proxy"),
    ("[healthcheck]", "oslo.middleware", "what `/healthcheck` looks at: `backends`, `detailed`"),
    ("[keystone_authtoken]", "keystonemiddleware", "how tokens are checked, with `auth_strategy = keystone`"),
)
_LOGIN: Final = (
    "how the service logs in there: `auth_type` (a plugin such as `password`) with its options "
    "(`auth_url`, `username`, `password`, `user_domain_name`, `project_name`, `project_domain_name`), "
    "`auth_section`, `cafile`, `certfile`, `keyfile`, `insecure`, and `timeout`, which is 60 here"
)


def page() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "The service reads `/etc/stillframe/stillframe.conf`, or the files it is told to read, in the format of"
    yield "oslo.config: groups in brackets, then `option = value`. An option can also be given in the environment, as"
    yield "`OS_<GROUP>__<OPTION>` in capitals, such as `OS_DEFAULT__BIND_PORT` or `OS_ENGINE__WORKERS`; a value in the"
    yield "environment overrides one in a file. A comment needs a line of its own."
    yield ""
    yield "If a group, an option or a value cannot be used, neither the service nor a command that reads the settings"
    yield "starts. The message says what is wrong, and suggests the most similar name that exists."
    yield ""
    installed_ = installed()
    for group in (*GROUPS, *groups(installed_)):
        yield f"## [{_section(group)}]"
        yield ""
        yield from table(("Option", "Type", "Default", "Meaning"), _options(group, installed_))
    yield "## Groups of the libraries"
    yield ""
    yield "These options belong to the libraries that read them and are described in their documentation."
    yield ""
    logins = [(f"[{group.name}]", "keystoneauth", _LOGIN) for group in groups(installed_) if group.login]
    rows = ((f"`{group}`", name, what) for group, name, what in (*_LIBRARIES, *logins))
    yield from table(("Group", "Library", "For what"), rows)


def _section(group: Group) -> str:
    return (group.name or "DEFAULT") if group.named_by is None else group.section("NAME")


def _options(group: Group, found: Sequence[Extension]) -> Iterator[tuple[str, str, str, str]]:
    for option in group.options:
        name, kind, default, meaning = _option(option)
        sections = (one.group for one in option.deprecated_opts if one.group not in (None, group.name))
        meaning += "".join(f" The former name of its section is `[{one}]`." for one in sections)
        older = (one.name for one in option.deprecated_opts if one.name not in (None, option.name))
        meaning += "".join(f" Its former name is `{one}`." for one in older)
        # Which drivers there are, the packages say that are installed; these are ours.
        for port in PORTS:
            if group.name == "drivers" and option.name == port:
                default = f"`{chosen(found, port, None)}`"
                meaning = f"{meaning} Ours: {', '.join(f'`{one}`' for one in names(found, port))}."
                former = {old: new for one in found if one.offers(port) for old, new in one.former.items()}
                meaning += "".join(f" `{old}` is the former name of `{new}`." for old, new in former.items())
        yield name, kind, default, meaning


def _option(option: cfg.Opt) -> tuple[str, str, str, str]:
    default = "-" if option.default in (None, []) else f"`{option.default}`"
    help_text = f"{option.help} Never logged." if option.secret else str(option.help)
    choices: Mapping[str, str | None] = getattr(option.type, "choices", None) or {}
    told = [f"`{choice}`" + (f" ({text})" if text else "") for choice, text in choices.items()]
    if told:
        help_text += f" One of: {', '.join(told)}."
    return f"`{option.name}`", _type(option), default, help_text


def _type(option: cfg.Opt) -> str:
    kind = type(option.type).__name__
    words = {"HostAddress": "address", "URI": "URL", "List": "list, separated by commas", "Float": "number"}
    name = words.get(kind, kind.lower())
    low = getattr(option.type, "min", None)
    return f"{name}, {low} or more" if low is not None and kind != "Port" else name
