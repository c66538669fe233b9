import gc
from collections.abc import Iterator

import pytest

from fabric_assets.importing import without_garbage_collection


@pytest.fixture(autouse=True)
def _keep_thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_garbage_is_not_collected_in_the_block_and_less_often_after_it() -> None:
    gc.set_threshold(700, 10, 10)
    frozen = gc.get_freeze_count()
    with without_garbage_collection():
        assert not gc.isenabled()
        made = [[number] for number in range(10_000)]
    assert gc.isenabled()
    assert gc.get_threshold()[0] > 10_000
    assert gc.get_freeze_count() >= frozen + len(made)


def test_after_a_failed_import_garbage_is_collected_again() -> None:
    with pytest.raises(ImportError), without_garbage_collection():
        raise ImportError
    assert gc.isenabled()
