"""What a stream's keys mean once they are read."""

from pathlib import Path

import pytest

from fabric_assets.config.effective import get_effective_values
from fabric_assets.config.loader import load_fleet
from fabric_assets.config.sources.rejects import RejectsConfig
from fabric_assets.config.sources.streams import StreamConfig
from fabric_assets.settings import Settings


@pytest.mark.parametrize(
    ("limit", "read", "rejected", "exceeded"),
    [
        (None, 10, 10, False),
        ("5%", 100, 5, False),
        ("5%", 100, 6, True),
        ("0.1%", 1000, 1, False),
        ("0.1%", 999, 1, True),
        ("100%", 3, 3, False),
        ("5%", 0, 0, False),
        (0, 10, 0, False),
        (0, 10, 1, True),
        (3, 10, 3, False),
        (3, 10, 4, True),
    ],
)
def test_a_limit_is_exceeded_by_the_first_row_beyond_it(limit: int | str | None, read: int, rejected: int, exceeded: bool) -> None:
    assert RejectsConfig(max=limit).is_exceeded(read, rejected) is exceeded


def test_one_word_stands_for_both_keys_of_the_contract_and_a_mapping_keeps_the_other_default() -> None:
    word = StreamConfig.model_validate({"schema_contract": "freeze"}).schema_contract
    mapping = StreamConfig.model_validate({"schema_contract": {"columns": "discard"}}).schema_contract
    assert (word.columns, word.data_type) == ("freeze", "freeze")
    assert (mapping.columns, mapping.data_type) == ("discard", "evolve")


def test_both_keys_of_a_contract_in_one_word_are_explained_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_text(
        "version: 1\ntenant: acme\nsources:\n  shop:\n    type: sql_database\n    url: {env: SHOP_URL}\n    streams:\n"
        "      one: {schema_contract: freeze}\n      two: {schema_contract: {columns: freeze}}\n"
    )
    loaded = load_fleet(Settings(tmp_path, tmp_path / "dbt_project", tmp_path / "data")).tenants["acme"]
    lines = {value.dotted.partition("streams.")[2]: value.origin.line if value.origin else None for value in get_effective_values(loaded)}
    assert lines["one.schema_contract.columns"] == lines["one.schema_contract.data_type"] == 8
    assert lines["two.schema_contract.columns"] == 9
    assert lines["two.schema_contract.data_type"] is None
