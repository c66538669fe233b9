"""The names that a load saves with a stream's state -> the tables that the stream's batches have named, beside its own."""

import json

from fabric_assets.rows.stream_names import NO_NAMES

# Keys of the saved names: table -> its names; whether the stream has a table of its own.
NAMED, HAS_OWN = "named", "has_own"


def load_named(kept: str | None) -> dict[str, str]:
    """Load the tables that a stream has named: table -> its saved names, as `StreamNames` takes them."""
    named = json.loads(kept).get(NAMED, {}) if kept and NAMED in kept else {}
    return {table: dump(names) for table, names in named.items()}


def keep_named(kept: str | None, names: str) -> str:
    """Return new names of a stream's own table with the named tables that the state has."""
    found = json.loads(kept or NO_NAMES)
    return dump({**json.loads(names), **{key: found[key] for key in (NAMED, HAS_OWN) if key in found}})


def dump(names: object) -> str:
    return json.dumps(names, ensure_ascii=False, separators=(",", ":"))
