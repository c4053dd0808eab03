"""What checking passwords costs, and when: counted, not timed."""

from __future__ import annotations

import base64
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import pytest

from stillframe.api.auth.passwords import Passwords
from stillframe.domain.errors import InvalidInput, Unauthorized, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

COST = 5


def header(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def hashed(password: str, cost: int = COST) -> bytes:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost))


class Checks:
    """bcrypt, and what it was asked."""

    def __init__(self) -> None:
        self.costs: list[int] = []
        self.clock = 0.0

    def __call__(self, password: bytes, crypted: bytes) -> bool:
        self.costs.append(int(crypted[4:6]))
        return bcrypt.checkpw(password, crypted)

    def now(self) -> float:
        return self.clock


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_bytes(b"alice:" + hashed("right") + b"\nbob:" + hashed("also") + b"\n")
    return path


@pytest.fixture
def passwords(file: Path, checks: Checks) -> Passwords:
    return Passwords(file, checks, checks.now)


def refused(passwords: Passwords, user: str, password: str) -> bool:
    try:
        passwords.user(header(user, password))
    except Unauthorized:
        return True
    return False


def test_a_good_pair_is_checked_once_for_a_while(passwords: Passwords, checks: Checks) -> None:
    assert passwords.costly(header("alice", "right"))
    assert {passwords.user(header("alice", "right")) for _ in range(50)} == {"alice"}
    assert not passwords.costly(header("alice", "right"))
    assert len(checks.costs) == 1
    checks.clock += 301
    assert passwords.user(header("alice", "right")) == "alice"
    assert len(checks.costs) == 2


def test_a_wrong_pair_is_checked_once_for_a_moment(passwords: Passwords, checks: Checks) -> None:
    assert all(refused(passwords, "alice", "wrong") for _ in range(50))
    assert len(checks.costs) == 1
    checks.clock += 11
    assert refused(passwords, "alice", "wrong")
    assert len(checks.costs) == 2
    # What is known of one pair says nothing of another one.
    assert refused(passwords, "bob", "right")
    assert refused(passwords, "alicer", "ight")
    assert passwords.user(header("alice", "right")) == "alice"


def test_a_change_of_the_file_counts_at_once(passwords: Passwords, checks: Checks, file: Path) -> None:
    assert passwords.user(header("alice", "right")) == "alice"
    assert passwords.user(header("bob", "also")) == "bob"
    assert refused(passwords, "alice", "new")
    file.write_bytes(b"alice:" + hashed("new") + b"\n")
    assert refused(passwords, "alice", "right")
    assert refused(passwords, "bob", "also")
    assert passwords.user(header("alice", "new")) == "alice"
    file.unlink()
    with pytest.raises(Unavailable):
        passwords.user(header("alice", "new"))
    assert checks.costs


def test_a_name_that_is_not_there_costs_as_much(passwords: Passwords, checks: Checks) -> None:
    assert refused(passwords, "nobody", "x")
    assert refused(passwords, "alice", "x")
    assert checks.costs == [COST, COST]


def test_few_are_checked_at_a_time_and_not_many_wait(file: Path) -> None:
    go, running, most = threading.Event(), [0], [0]
    guard = threading.Lock()

    def slow(password: bytes, crypted: bytes) -> bool:
        with guard:
            running[0] += 1
            most[0] = max(most[0], running[0])
        assert go.wait(30)
        with guard:
            running[0] -= 1
        return bcrypt.checkpw(password, crypted)

    passwords = Passwords(file, slow)
    ends: list[type[Exception]] = []

    def guess(number: int) -> None:
        try:
            passwords.user(header("alice", f"guess {number}"))
        except (Unauthorized, Unavailable) as error:
            ends.append(type(error))

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(ends) == 14)
    assert set(ends) == {Unavailable}
    go.set()
    for thread in threads:
        thread.join(30)
    assert (most[0], ends.count(Unauthorized)) == (2, 10)
    assert passwords.user(header("alice", "right")) == "alice"


def test_what_is_remembered_is_bounded(file: Path) -> None:
    passwords = Passwords(file, lambda password, _crypted: password == b"right")
    assert passwords.user(header("alice", "right")) == "alice"
    for number in range(3000):
        assert refused(passwords, f"user {number}", "x")
    assert not passwords.costly(header("user 2999", "x"))
    assert passwords.costly(header("user 1", "x"))
    assert not passwords.costly(header("alice", "right"))


@pytest.mark.parametrize("password", ["x" * 100, "nul\0nul"])
def test_what_bcrypt_does_not_take_is_wrong(passwords: Passwords, password: str) -> None:
    assert refused(passwords, "alice", password)


@pytest.mark.parametrize("line", ["alice:{SHA}abc", "alice:$apr1$abc", "alice:", "alice:$2b$xx$abc"])
def test_a_file_without_such_hashes_is_refused_and_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"# users\n{line}\n")
    with pytest.raises(InvalidInput, match="line 2 has no bcrypt hash; make it with: htpasswd -B"):
        Passwords(path)
    with pytest.raises(InvalidInput, match="No such file"):
        Passwords(tmp_path / "nothing")


def eventually(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.01)
