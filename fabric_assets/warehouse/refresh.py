"""Tables that a full refresh has made beside those that readers see -> their places, in the transaction's last statements.

Where the columns are the ones that there were, and more, the table itself stays and takes the new rows: views on it, grants and
indexes stay with it. Where one is gone or of another type, the new table takes the old one's name, and views on the old one go.
"""

from collections.abc import Mapping

from fabric_assets.quoting import quote, quote_all
from fabric_assets.warehouse.session import Columns, Session, Table
from fabric_assets.warehouse.stream_table import StreamTable, build_count_error


def replace_tables(session: Session, made: Mapping[str, StreamTable], former: Mapping[str, Columns], *, schema: str, counts_exactly: bool = False) -> None:
    """Args:
    made: the new tables by name.
    former: the columns of those in the schema.
    counts_exactly: those in the schema have objects that act on rows, so the rows are counted again where they are.
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
        # The primary key in the YAML is another one now, or the new rows hold one that is too long for an index.
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
