"""How much of a slow suite runs: all of it by `make test-faults` and `make test-slow`, which set FABRIC_TEST_SEEDS=50, a part of it by `make test`."""

import os
from collections.abc import Sequence
from typing import TypeVar

import pytest

T = TypeVar("T")

# FABRIC_TEST_SEED=17 plays one seed again.
SEED = int(os.environ["FABRIC_TEST_SEED"]) if "FABRIC_TEST_SEED" in os.environ else None
SEEDS = int(os.environ["FABRIC_TEST_SEEDS"]) if "FABRIC_TEST_SEEDS" in os.environ else None
IS_FULL = SEED is not None or SEEDS is not None
# Controls that show that the test beside them can go red, and the largest cases of a kind of which `make test` tries smaller ones.
AT_FULL_LENGTH = pytest.mark.skipif(not IS_FULL, reason="runs at full length: make test-faults, make test-slow")


def choose(cases: Sequence[T], number: int) -> list[T]:
    """So many of the cases, evenly spread from the first to the last; all of them at full length."""
    if IS_FULL or number >= len(cases):
        return list(cases)
    return [cases[round(index * (len(cases) - 1) / (number - 1))] for index in range(number)] if number > 1 else [cases[0]]


def choose_seeds(number: int) -> list[int]:
    """So many, unless the environment says which or how many."""
    return list(range(SEEDS or number)) if SEED is None else [SEED]
