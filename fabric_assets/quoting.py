"""Names and texts -> quoted SQL, in the standard quoting that Postgres and DuckDB share."""

from collections.abc import Iterable


def quote(name: str) -> str:
    """Quote an identifier."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def quote_all(names: Iterable[str], *, table: str = "") -> str:
    """Quote identifiers as a list, each after the table's name."""
    prefix = f"{table}." if table else ""
    return ", ".join(prefix + quote(name) for name in names)


def quote_match(names: Iterable[str], left: str, right: str) -> str:
    """Write the condition that all columns of these names are equal in two tables."""
    return " and ".join(f"{left}.{quote(name)} = {right}.{quote(name)}" for name in names)


def quote_table(*parts: str) -> str:
    """Quote a table's name, after its database and schema."""
    return ".".join(map(quote, parts))


def quote_text(text: str) -> str:
    """Quote a string literal. The server reads backslashes as they are (standard_conforming_strings)."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"
