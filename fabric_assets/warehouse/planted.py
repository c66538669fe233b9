"""The catalog of a destination -> objects in a tenant's schemas that no load has made and that block a load or change its rows.

The author of a tenant's models can make them with the tenant's own login. Those that act on rows are listed before each load, the others when the
destination has refused rows: to list them all costs time.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fabric_assets.errors import DestinationError, FabricError
from fabric_assets.quoting import quote_text
from fabric_assets.rows.column_names import is_of_family
from fabric_assets.warehouse.session import KeyConflict, Session

# Objects that one message names.
_SHOWN = 5
# Errors whose reason may be such an object.
REFUSALS = frozenset({DestinationError, KeyConflict})


@dataclass(frozen=True)
class Planted:
    """An object that no load has made.

    Args:
        how: `name`: it has the name of a table; `acts`: it runs when rows are written or read; `refuses`: it refuses rows.
        what: the kind of object and its name, e.g. `the trigger audit`.
        drop: the statement that removes it.
    """

    schema: str
    table: str
    how: str
    what: str
    drop: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.table} is {self.what}" if self.how == "name" else f"{self.schema}.{self.table} has {self.what}"


def find_planted(session: Session, schemas: Iterable[str], *, also_refusing: bool = False) -> list[Planted]:
    """List objects on the tables of schemas.

    Args:
        also_refusing: also those that refuse rows, such as constraints.
    """
    sql = session.planted_sql
    listed = ", ".join(map(quote_text, schemas))
    parts = [part.format(schemas=listed) for part in (sql.acting, *([sql.refusing] if also_refusing else []))]
    rows = session.query(f"select * from ({' union all '.join(parts)}) as found order by 1, 2, 4").to_pylist()
    return [Planted(*row.values()) for row in rows]


def refuse_in_platform_tables(planted: Sequence[Planted], tables: Mapping[str, Collection[str]], *, where: str) -> None:
    """Raise an error if there are such objects at the tables in which the platform keeps its state.

    Args:
        tables: schema -> names of the platform's tables.

    Raises:
        DestinationError: there is one.
    """
    if found := [each for each in planted if each.how in {"name", "acts"} and each.table in tables.get(each.schema, ())]:
        raise DestinationError(f"{where}: {_list(found)}; the platform keeps what it knows of loads there, and nothing was loaded", remedy=_list_drops(found))


def list_of_tables(planted: Iterable[Planted], raw: str, roots: Collection[str]) -> list[Planted]:
    """List the objects at root tables and at the tables of their nested lists."""
    return [each for each in planted if each.schema == raw and any(is_of_family(each.table, root) for root in roots)]


def refuse_other_kinds(planted: Iterable[Planted], *, where: str) -> None:
    """Raise an error if an object that is not a table has the name of one of a stream's tables.

    Raises:
        DestinationError: a view, a sequence or another object has it.
    """
    if found := [each for each in planted if each.how == "name"]:
        raise DestinationError(f"{where}: {_list(found)}, where a table of the stream belongs; nothing was loaded", remedy=_list_drops(found))


def describe_acting(planted: Iterable[Planted]) -> Iterator[str]:
    """Describe objects that may change what a load has written, as warnings of its summary."""
    for each in planted:
        if each.how == "acts":
            yield (
                f"{each}, which no load has made and which can change the rows of loads: the table may hold other values than the source. "
                f"Do such work in a model, and drop it: {each.drop}"
            )


def explain_refusal(error: FabricError, session: Session, raw: str, roots: Collection[str]) -> FabricError:
    """Add to an error the objects that may be the reason why the destination refuses a stream's rows.

    Returns:
        the error itself if there are no such objects.
    """
    planted = list_of_tables(find_planted(session, [raw], also_refusing=True), raw, roots)
    # Objects that the error already names are left out.
    found = [each for each in planted if each.drop not in error.remedy]
    if not found:
        return error
    return DestinationError(
        f"{error.message.rstrip('.')}; {_list(found)}, which no load has made and which may be the reason",
        remedy=f"{_list_drops(found)}; then run the load again",
    )


def _list(found: Sequence[Planted]) -> str:
    more = [f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return ", ".join([*map(str, found[:_SHOWN]), *more])


def _list_drops(found: Sequence[Planted]) -> str:
    return "; ".join(dict.fromkeys(each.drop for each in found[:_SHOWN]))
