"""A query that a database refuses -> an error that names the stream's `where`, if that is the reason.

A driver's message does not say which part of a statement comes from the YAML. So the database gets two more queries for no rows: with the condition, and
without it.
"""

import re
from dataclasses import replace

from fabric_assets.connectors.sql_database.database import Database
from fabric_assets.connectors.sql_database.query import Query
from fabric_assets.errors import SourceError

_SHOWN = 200
# Postgres and DuckDB quote our statement, with a caret below the position.
_QUOTE = re.compile(r"\s*LINE \d+: .*?\^")


def explain_refusal(database: Database, query: Query, error: SourceError, *, label: str) -> SourceError:
    """Return the error of a refused query: one about its condition if that is the reason, else the original one."""
    if query.where is None or database.is_late():
        return error
    nothing = "1 = 0"
    objection = database.find_objection(replace(query, bound=None, where=f"{nothing} and ({query.where}\n)").build_sql(select="1"))
    if objection is None or database.find_objection(replace(query, bound=None, where=nothing).build_sql(select="1")) is not None:
        return error
    written = " ".join(query.where.split())
    shown = written if len(written) <= _SHOWN else written[:_SHOWN] + "..."
    return SourceError(
        f"{label}: where: the database refuses the condition {shown}: {_QUOTE.sub('', objection)}",
        remedy="correct the stream's where: a condition on the table's columns, in the database's own SQL",
    )
