"""Imports without garbage collection: they make hundreds of thousands of objects, and none of them is garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_SELDOM = 100_000, 20, 20


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Disable garbage collection during the block.

    Later collections ignore the objects that exist by then, and are less frequent: most objects of Dagster and dbt stay until the end.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*_SELDOM)
        gc.enable()
