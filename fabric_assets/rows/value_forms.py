"""The versions of the form in which stored values and column names are written.

A stream keeps the version with which its table was made, so no column mixes two forms. A connector or shaper that changes a form
writes the new one only if `memory.value_forms >= 2`. For each column whose values would have another form today, it calls
`memory.note_older_form` with a word of OLDER_FORMS. The run's summary then names the column, and `fabric migrate-values` rewrites
it in the warehouse or says that the stream has to be loaded anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# Tables that were made before versions were recorded: UUIDs as bytes, arrays as the source spells them, `x` for names in other scripts.
FIRST = 1
# New tables, and tables that a full refresh or `fabric migrate-values` has made anew.
CURRENT = 2
# Instead of a field's name: the stream's rows as a whole.
WHOLE_STREAM = "*"


@dataclass(frozen=True)
class OlderForm:
    """An earlier form of a column's values.

    Args:
        words: what the values are, for messages. How a destination derives the present values is declared there (drivers/kinds.py).
    """

    words: str


OLDER_FORMS: Mapping[str, OlderForm] = {
    "uuid": OlderForm("UUIDs as bytes"),
    "json": OlderForm("JSON as text"),
    # Followed by the words of the values' type: see name_list_form. Python parses the text (older_forms/lists.py): DuckDB's SQL cannot read Postgres's arrays.
    "list": OlderForm("lists as text"),
    "text": OlderForm("another spelling"),
    "rows": OlderForm("the first list within an object in place of the object"),
    # 10.1 and 10.10 are one number: which of them the text was is lost.
    "code": OlderForm("codes as numbers"),
}
_LIST = "list:"


def get_older_form(form: str) -> OlderForm:
    return OLDER_FORMS[form.partition(":")[0]]


def name_list_form(values: str) -> str:
    """Name the form of lists that are stored as text.

    Args:
        values: the type of the values, by `arrow_types.get_word`; or `real`, `json`.
    """
    return f"{_LIST}{values}"


def get_list_values(form: str) -> str | None:
    """The type of a list's values, as `name_list_form` got it; None of any other form."""
    return form.removeprefix(_LIST) if form.startswith(_LIST) else None
