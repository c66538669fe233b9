"""New tables of a full refresh -> the tables that readers see, in the last statements of the transaction.

If a new table has all columns of the old one, the old table gets the new rows, and keeps its views, grants and indexes.
If a column is gone or has another type, the new table replaces the old one, and views on the old one are dropped.
"""

from collections.abc import Mapping

from fabric_assets.quoting import quote, quote_all
from fabric_assets.warehouse.session import Columns, Session, Table
from fabric_assets.warehouse.stream_table import StreamTable, build_count_error


def replace_tables(session: Session, made: Mapping[str, StreamTable], former: Mapping[str, Columns], *, schema: str, counts_exactly: bool = False) -> None:
    """Replace the tables of a schema by new ones, or refill them.

    Args:
        made: the new tables by name.
        former: the columns of the tables in the schema.
        counts_exactly: tables in the schema have objects that act on rows, so their rows are counted afterwards.
    """
    stay = {name for name, columns in former.items() if name in made and columns.items() <= made[name].columns.items()}
    for name in former.keys() - stay:
        session.execute(f"drop table if exists {Table(schema, name)} cascade")
    for name, table in made.items():
        if name in stay:
            _refill(session, Table(schema, name), table, former[name], counts_exactly=counts_exactly)
        else:
            session.execute(f"alter table {table.table} set schema {quote(schema)}")


def _refill(session: Session, shown: Table, made: StreamTable, former: Columns, *, counts_exactly: bool) -> None:
    session.delete(shown)
    session.add_columns(shown, {name: kind for name, kind in made.columns.items() if name not in former})
    kept, possible = session.find_kept_key(shown), session.find_kept_key(made.table)
    if kept is not None and kept != possible:
        # The primary key in the YAML has changed, or the new rows have a key that is too long for an index.
        session.forget_key(shown)
        kept = None
    names = quote_all(made.columns)
    moved = session.execute(f"insert into {shown} ({names}) select {names} from {made.table}")
    ((rows,),) = session.ask(f"select count(*) from {made.table}")
    if moved != rows:
        raise build_count_error(shown, rows, moved)
    if counts_exactly and (held := session.ask(f"select count(*) from {shown}")[0][0]) != rows:
        raise build_count_error(shown, rows, held)
    session.execute(f"drop table {made.table}")
    if possible is not None and kept is None:
        session.keep_key(shown, possible)
