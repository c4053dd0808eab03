"""What the settings may not say: names that nothing reads, and values of no use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stillframe.api.auth.strategies import check_strategy
from stillframe.domain.errors import InvalidInput
from stillframe.drivers.storage_virtualize import options
from stillframe.settings import load
from tests.cli.program import Place

if TYPE_CHECKING:
    from pathlib import Path

KEYSTONE = "auth_type = password\nauth_url = http://127.0.0.1:5000\n"
#: What is written, and what is said about it.
WRONG = {
    "[DEFAULT]\nbind_prot = 1": "There is no option bind_prot in [DEFAULT] (FILE); did you mean bind_port?",
    "[DEFAULT]\nbind_port = abc": "bind_port in [DEFAULT] (FILE) has to be a whole number from 0 to 65535, not 'abc'.",
    "[DEFAULT]\nauth_strategy = tokn": "has to be one of token, keystone, http_basic, noauth, not 'tokn'.",
    "[DEFAULT]\nbind_host = a b": "has to be an address or the name of a host, not 'a b'.",
    "[DEFAULT]\npublic_endpoint = x": "has to be a URL that begins with http:// or https://, not 'x'.",
    "[DEFAULT]\nuse_jsn = true": "There is no option use_jsn in [DEFAULT] (FILE); did you mean use_json?",
    "[DEFAULT]\nuse_json = maybe": "has to be true or false, not 'maybe'.",
    "[DEFAULT]\nworkers = 3": "There is no option workers in [DEFAULT] (FILE); it belongs into [engine].",
    "[default]\nbind_port = 1": "There is no group [default] (FILE); did you mean [DEFAULT]?",
    "[enginee]\nworkers = 3": "There is no group [enginee] (FILE); did you mean [engine]?",
    "[enginee]": "There is no group [enginee] (FILE); did you mean [engine]?",
    "[engine]\nwokers = 3": "There is no option wokers in [engine] (FILE); did you mean workers?",
    "[engine]\nworkers = 0": "has to be a whole number, 1 or more, not '0'.",
    "[engine]\nworkers = 8    # operations": "workers in [engine] (FILE) has a comment behind its value",
    "[DEFAULT]\nstate_dir = /srv/x ; here": "state_dir in [DEFAULT] (FILE) has a comment behind its value",
    "[oslo_policy]\npolicy_fiel = x": "no option policy_fiel in [oslo_policy] (FILE); did you mean policy_file?",
    "[oslo_middleware]\nenable_proxy_header_parsing = true": "did you mean enable_proxy_headers_parsing?",
    "[oslo_middleware]\nenable_proxy_headers_parsing = ture": "has to be true or false, not 'ture'.",
    "[healthcheck]\ndetaild = true": "There is no option detaild in [healthcheck] (FILE); did you mean detailed?",
    "[openstack]\nauth_type = pasword": "no plugin 'pasword' for auth_type in [openstack]; did you mean password?",
    f"[openstack]\n{KEYSTONE}user_domain_nmae = x": "did you mean user_domain_name?",
    f"[keystone_authtoken]\n{KEYSTONE}user_domain_nmae = x": "did you mean user_domain_name?",
    "[openstack]\ninterface = intern": "has to be one of internal, public, admin, not 'intern'.",
    "[storage_virtualize]\narrays = one\n[array:two]\n": "arrays in [storage_virtualize] does not name 'two'.",
    "[storage_virtualize]\narrays = one\n[array:one]\nendpiont = x": "did you mean endpoint?",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_nothing_reads_is_refused_with_the_nearest_name(text: str, tmp_path: Path) -> None:
    file = tmp_path / "stillframe.conf"
    file.write_text(text + "\n")
    with pytest.raises(InvalidInput) as refused:
        load([str(file)])
    assert WRONG[text].replace("FILE", str(file)) in refused.value.message


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    file = tmp_path / "stillframe.conf"
    with pytest.raises(InvalidInput, match=f"{file} cannot be read: No such file or directory"):
        load([str(file)])
    file.write_bytes(b"[DEFAULT]\n\xff\xfe = 1\n")
    with pytest.raises(InvalidInput, match=f"{file} cannot be read: it has to be UTF-8 text"):
        load([str(file)])
    file.write_text("bind_port = 1\n")
    with pytest.raises(InvalidInput, match=f"{file}:1, Section must be started before assignment"):
        load([str(file)])


def test_a_secret_that_is_of_no_use_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "stillframe.conf"
    file.write_text("[database]\nconnectoin = mysql://hunter2\n")
    with pytest.raises(InvalidInput) as refused:
        load([str(file)])
    assert "hunter2" not in refused.value.message
    file.write_text("[job_board]\npassword = hunter2 # 3\n")
    assert load([str(file)]).conf.job_board.password == "hunter2 # 3"


def test_names_as_oslo_config_takes_them_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "stillframe.conf"
    file.write_text(
        "[Engine]\nworkers = 3\n[storage_virtualize]\narrays = FS1\n"
        "[array:FS1]\nendpoint = https://x:7443\nusername = x\npassword = y\n"
        f"[openstack]\nauth_section = login\n[login]\n{KEYSTONE}user-domain-name = Default\n"
        "[keystone_authtoken]\nauth_plugin = password\nmemcache_servers = localhost:11211\n"
    )
    settings = load([str(file)])
    assert settings.engine.workers == 3
    assert options.read(settings).arrays[0].username == "x"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OS_WORKER__METRIC_BIND_PORT", "1", "OS_WORKER__METRIC_BIND_PORT); did you mean metrics_bind_port?"),
        ("OS_WROKER__METRICS_BIND_PORT", "1", "OS_WROKER__METRICS_BIND_PORT); did you mean [worker]?"),
        ("OS_DEFAULT__BIND_PORT", "x", "has to be a whole number from 0 to 65535, not 'x'."),
    ],
)
def test_the_environment_is_no_place_for_slips_either(
    variable: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "stillframe.conf"
    file.touch()
    monkeypatch.setenv("OS_NOVA__SOMETHING", "of another program")
    assert load([str(file)]).engine.workers
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInput) as refused:
        load([str(file)])
    assert said in refused.value.message


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_no_command_starts_with_a_slip(command: str, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.configure(bind_prot="1")
    done = place.run(command)
    assert done.code == 2
    assert done.err.endswith(f"There is no option bind_prot in [DEFAULT] ({place.config}); did you mean bind_port?\n")
    assert not (tmp_path / "state").exists()


def test_a_user_file_that_is_missing_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.configure(auth_strategy="http_basic", http_basic__user_file=str(tmp_path / "htpasswd"))
    with pytest.raises(InvalidInput) as refused:
        check_strategy(load([str(place.config)]))
    told = f"http_basic.user_file: {tmp_path}/htpasswd cannot be used: No such file or directory"
    assert refused.value.message == told
