"""Rejected rows with values in an earlier form -> the same rows with values in today's form.

So a replay reads them as today's rows, and a load that rejects one again recognises it by its id.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

from fabric_assets import naming
from fabric_assets.loading.older_forms.lists import ListForm
from fabric_assets.loading.rejects.reader import find_rejects
from fabric_assets.quoting import quote_text
from fabric_assets.rows.arrow_types import to_json
from fabric_assets.rows.mixed_columns import list_values
from fabric_assets.rows.value_forms import get_list_values
from fabric_assets.warehouse.platform_tables.rejected_rows import build_row_id
from fabric_assets.warehouse.session import Session, Table


def rewrite_rejects(session: Session, tenant: str, source: str, stream: str, forms: Mapping[str, str]) -> None:
    """Rewrite the fields of a stream's rejected rows.

    Args:
        forms: field -> its earlier form. A value of another form stays as it is: it may be why the row was rejected.
    """
    converts = {field: convert for field, form in forms.items() if (convert := _find_convert(form))}
    if not converts:
        return
    table, copies = Table(naming.platform_dataset(tenant), "rejected_rows"), Counter[str]()
    for portion in find_rejects(session.ask, tenant, source=source, stream=stream).read():
        changed = []
        for row in portion:
            fields = row.parse()
            if fields is None or row.table_name:
                # A table that a batch has named has today's forms.
                continue
            present = {name: converts[name](value) if name in converts and isinstance(value, str) else value for name, value in fields.items()}
            raw = to_json(present) or ""
            row_id = build_row_id(source, stream, row.origin, row.row_number, raw, copies)
            if present != fields:
                changed.append(f"({quote_text(row.row_id)}, {quote_text(row_id)}, {quote_text(raw)})")
        if changed:
            given = f"(values {', '.join(changed)}) as v (former, row_id, raw)"
            session.execute(f"update {table} as t set row_id = v.row_id, raw = v.raw from {given} where t.row_id = v.former")


def _find_convert(form: str) -> Callable[[str], Any] | None:
    if form == "uuid":
        return _spell_uuid
    values = get_list_values(form)
    if values is None:
        return None
    lists = ListForm.build(values)

    def convert(text: str) -> Any:
        with suppress(ValueError, OverflowError, RecursionError):
            found, beside = lists.convert([text])
            return list_values(found)[0] if beside[0].as_py() is None else beside[0].as_py()
        return text

    return convert


def _spell_uuid(text: str) -> str:
    with suppress(ValueError):
        return str(UUID(text))
    return text
