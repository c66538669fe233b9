"""A connector's plan is the authority on how its rows are written; nothing reads the YAML behind it."""

from dataclasses import replace

import pytest

from fabric_assets.config.sources.rejects import RejectsConfig
from fabric_assets.config.sources.streams import SchemaContract
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.registry import open_source
from fabric_assets.loading import leased_load
from fabric_assets.rows.batches import SourceReader
from fabric_assets.settings import Settings
from tests.support.shop import SourceDatabase, Tenant


def test_a_load_goes_by_the_plan_and_not_by_the_yaml(
    settings: Settings, sqlite: SourceDatabase, warehouse: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The YAML says replace, freeze and no rejected row; the plan says merge, evolve, any number, and renames a column."""
    planned = {"disposition": "merge", "key": ("id",), "contract": SchemaContract(), "rejects": RejectsConfig(), "rename": {"total": "amount"}}

    def open_planned(context: SourceContext) -> SourceReader:
        reader = open_source(context)
        groups = (replace(group, streams=tuple(replace(plan, **planned) for plan in group.streams)) for group in reader.groups)  # type: ignore[arg-type]
        return replace(reader, groups=tuple(groups))

    monkeypatch.setattr(leased_load, "open_source", open_planned)
    sqlite.run("create table orders (id integer, total integer)", "insert into orders values (1, 10), (2, 20)")
    tenant = Tenant(settings, sqlite.build_source(orders={"schema_contract": "freeze", "rejects": {"max": 0}}), warehouse=warehouse)
    tenant.load()
    sqlite.run("delete from orders", "alter table orders add column note text", "insert into orders values (2, 21, 'new'), (null, 30, 'bad')")
    report = tenant.load()["orders"]
    assert (report.record.write_disposition, report.record.rows_rejected) == ("merge", 1)
    assert tenant.read("orders", "id", "amount", "note") == [(1, 10, None), (2, 21, "new")]
    assert tenant.ask("select distinct write_disposition from acme_fabric.loads") == [("merge",)]
