"""What cannot be found out about a built model: a warehouse's or sqlglot's refusal in its own words, a fault of ours as ours."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from fabric_assets.own_faults import report_own_fault
from fabric_assets.rows.column_names import compose
from fabric_assets.settings import Settings
from fabric_assets.transform.worker import description, findings
from tests.support.tracebacks import read_traceback


def fail(*_: Any) -> Any:
    return compose(5)  # type: ignore[arg-type] - our own line fails at it


def refuse(*_: Any) -> Any:
    raise KeyError("as sqlglot raises one")


def test_a_fault_of_ours_is_reported_as_ours_and_the_model_is_built(settings: Settings) -> None:
    report = partial(report_own_fault, data_dir=settings.data_dir, tenant="acme")
    node = SimpleNamespace(schema="acme_marts", alias="sales", compiled_code="select 1 as one", language="sql", resource_type="model")
    lineage, doubt = description._find_lineage(node, SimpleNamespace(find=fail), {}, report)  # type: ignore[arg-type]
    assert lineage == {}
    assert doubt.startswith("its column lineage is unknown: a fault of ETL Fabric (AttributeError at fabric_assets/rows/column_names.py:")
    assert "compose(5)" in read_traceback(settings, "acme", doubt)
    rows, problem = description._count_rows(SimpleNamespace(count_rows=fail), ("acme_marts", "sales"), report)  # type: ignore[arg-type]
    assert rows is None
    assert problem.startswith("its rows could not be counted: a fault of ETL Fabric (AttributeError at")
    _, doubt = description._find_lineage(node, SimpleNamespace(find=refuse), {}, report)  # type: ignore[arg-type]
    assert doubt == "its column lineage is unknown: 'as sqlglot raises one'"


def test_a_fault_of_ours_in_what_a_test_found_shows_no_value(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = partial(report_own_fault, data_dir=settings.data_dir, tenant="acme")
    monkeypatch.setattr(findings, "_describe", fail)
    duckdb.connect(str(tmp_path / "acme.duckdb")).close()
    destination = {"type": "duckdb", "path": str(tmp_path / "acme.duckdb")}
    ((_, words),) = findings.describe_failures(None, {"test.a": (None, 2)}, destination=destination, spill=tmp_path, report=report)  # type: ignore[arg-type]
    assert words["message"].startswith(
        "2 rows found; their values could not be read (a fault of ETL Fabric: AttributeError; traceback: FABRIC_DATA_DIR/errors/acme/"
    )
    assert "isascii" not in words["message"]
