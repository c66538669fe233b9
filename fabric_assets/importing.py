"""Imports without a search for garbage: they make objects by the hundred thousand, and none of them is any."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_SELDOM = 100_000, 20, 20


@contextmanager
def collect_nothing() -> Iterator[None]:
    """Import in the block. After it no search goes through what there is, and there are fewer: most of what Dagster and dbt make stays until the end."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*_SELDOM)
        gc.enable()
