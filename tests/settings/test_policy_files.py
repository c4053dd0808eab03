"""What policy files may not say, and what becomes of one that is changed while the service runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from stillframe.domain.errors import InvalidInput
from stillframe.service.caller import Caller
from stillframe.service.policy import Policy
from stillframe.settings import load
from tests.cli.program import Place

if TYPE_CHECKING:
    from pathlib import Path

WRONG = {
    '"snapshot:resotre": "role:admin"': "there is no rule 'snapshot:resotre'; did you mean 'snapshot:restore'?",
    '"operators": "role:operator"': "there is no rule 'operators'",
    '"snapshot:restore": "rule:operators"\n"operator": "role:operator"': "there is no rule 'operator",
    '"snapshot:restore": "not rule:owners"': "there is no rule 'owners'; did you mean 'owner'?",
    '"snapshot:restore": "role:admin adn role:x"': "'role:admin adn role:x' cannot be parsed",
    '"snapshot:restore": "rol:admin"': "a caller has no 'rol'; did you mean 'role'?",
    '"snapshot:restore": "project_id:%(projekt_id)s"': "has no 'projekt_id'; did you mean 'project_id'?",
    '"snapshot:restore": "rule:a"\n"a": "rule:snapshot:restore"': "go round in a circle",
    "- a list": "cannot be used",
    "[": "cannot be used",
}
OPERATORS = '"operators": "role:operator"\n"snapshot:restore": "rule:operators and not user_id:eve"\n'


def policy(folder: Path, text: str) -> Policy:
    (folder / "policy.yaml").write_text(text + "\n")
    (folder / "stillframe.conf").write_text(f"[oslo_policy]\npolicy_file = {folder}/policy.yaml\n")
    return Policy(load([str(folder / "stillframe.conf")]).conf)


def operator() -> Caller:
    return Caller(user_id="ana", project_id="p", roles=frozenset({"operator"}), request_id="")


@pytest.mark.parametrize("text", WRONG)
def test_a_rule_that_would_do_nothing_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        policy(tmp_path, text).load()
    assert WRONG[text] in refused.value.message


def test_a_file_or_folder_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for option in ("policy_file", "policy_dirs"):
        place.configure(**{f"oslo_policy__{option}": str(tmp_path / "polcy")})
        with pytest.raises(InvalidInput, match=f"{tmp_path}/polcy is not there"):
            Policy(load([str(place.config)]).conf).load()
    done = place.run("serve")
    assert done.code == 2
    assert f"{tmp_path}/polcy is not there" in done.err
    Policy(load([os.devnull]).conf).load()


def test_rules_of_ones_own_are_fine_where_others_refer_to_them(tmp_path: Path) -> None:
    rules = policy(tmp_path, OPERATORS)
    rules.load()
    assert rules.allows(operator(), "snapshot:restore", "p")
    assert not rules.allows(operator(), "snapshot:delete", "p")


def test_a_change_counts_at_once_and_one_that_cannot_be_used_not_at_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = policy(tmp_path, OPERATORS)
    rules.load()
    (tmp_path / "policy.yaml").write_text(f'{OPERATORS}"snapshot:dleete": "role:operator"\n')
    for _ in range(3):
        assert rules.allows(operator(), "snapshot:restore", "p")
        assert not rules.allows(operator(), "snapshot:delete", "p")
    (told,) = [record.message for record in caplog.records if "rules from before stay in force" in record.message]
    assert "there is no rule 'snapshot:dleete'; did you mean 'snapshot:delete'?" in told
    (tmp_path / "policy.yaml").write_text('"snapshot:delete": "role:operator"\n')
    assert not rules.allows(operator(), "snapshot:restore", "p")
    assert rules.allows(operator(), "snapshot:delete", "p")
    (tmp_path / "policy.yaml").unlink()
    assert rules.allows(operator(), "snapshot:delete", "p")
