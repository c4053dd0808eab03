"""How a volume is put back, by what is known about it; this needs no cloud."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stillframe.domain.errors import NotSupported
from stillframe.drivers.openstack.strategy import Circumstances, Strategy, choose

STOCK = Circumstances(extension=False, newest=True, reverts=True, encrypted=False, sparse=False, reimage=True)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (STOCK, Strategy.REVERT),
        (replace(STOCK, encrypted=True), Strategy.REVERT),
        (replace(STOCK, sparse=True), Strategy.REVERT),
        (replace(STOCK, newest=False), Strategy.REIMAGE),
        (replace(STOCK, extension=True), Strategy.EXTENSION),
        (replace(STOCK, extension=True, newest=False, encrypted=True, reimage=False), Strategy.EXTENSION),
        # Cinder would copy in the driver's place, or the driver would merge at some later time.
        (replace(STOCK, reverts=False), Strategy.REIMAGE),
        (replace(STOCK, reverts=False, extension=True), Strategy.REIMAGE),
    ],
)
def test_the_best_way_that_is_open_is_taken(known: Circumstances, expected: Strategy) -> None:
    assert choose("v", known) is expected


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (replace(STOCK, newest=False, reimage=False), "settings"),
        (replace(STOCK, newest=False, encrypted=True), "encrypted"),
        (replace(STOCK, newest=False, sparse=True), "sparse"),
        (replace(STOCK, reverts=False, sparse=True), "stale data"),
        (replace(STOCK, reverts=False, sparse=True, extension=True), "stale data"),
        (replace(STOCK, reverts=False, encrypted=True, extension=True), "does not revert by itself"),
    ],
)
def test_the_refusal_says_why_no_way_is_safe(known: Circumstances, reason: str) -> None:
    with pytest.raises(NotSupported, match=reason):
        choose("volume-1", known)
