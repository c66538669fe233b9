"""What the contract suite asks of a source type: where its rows are, and how they change."""

import json
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from fabric_assets.settings import Settings

Row = tuple[int, str, str, int]
COLUMNS = ("id", "owner", "note", "seq")
STREAMS = ("orders", "stores")


class Source:
    """A source of one type with the streams `orders` and `stores`, whose rows the test knows. A class per type says how it stores them.

    Args:
        environ: sets an environment variable; a secret goes there, so that no file of the test holds it.
        get_fixture: gives servers and databases.
    """

    # The word in YAML.
    type: ClassVar[str]
    # What each second load reads at the most besides what has changed: the rows at the cursor's last value.
    boundary: ClassVar[int] = 0
    # Why a bad row is rejected, and the column that is named.
    reason: ClassVar[tuple[str, str | None]] = ("null_key", "id")
    # What becomes of a stream that is broken: it fails, or its file is quarantined.
    quarantines: ClassVar[bool] = False
    disposition: ClassVar[str] = "merge"
    # Whether a load can find rows that the source no longer has.
    follows_deletes: ClassVar[bool] = False

    def __init__(self, settings: Settings, environ: Callable[[str, str], None], get_fixture: Callable[[str], Any]) -> None:
        self.settings, self.environ, self.get_fixture = settings, environ, get_fixture
        self.rows: dict[str, dict[int, Row]] = {stream: {} for stream in STREAMS}
        self._seq = 0
        # Of both streams; None leaves it out.
        self.deletes: dict[str, Any] | None = None
        # Found nowhere but in the environment; empty where the type is not told any secret.
        self.secret = ""
        self.prepare()

    def put(self, stream: str, numbers: Iterable[int], note: str) -> None:
        """Add rows, or change those that are there."""
        changed = [(number, "acme", f"{note} {number}", self.next_seq()) for number in numbers]
        self.rows[stream] |= {row[0]: row for row in changed}
        self.write(stream, changed)

    def next_seq(self) -> int:
        """A number above all that the rows have so far."""
        self._seq += 1
        return self._seq

    def remove(self, stream: str, number: int) -> None:
        self.delete(stream, self.rows[stream].pop(number))

    def build_block(self) -> dict[str, Any]:
        """The source's block of the YAML, which shares no part with itself: YAML would be written with an alias."""
        block = json.loads(json.dumps({**self.build(), "retries": {"max": 0}}))
        for stream in block["streams"].values() if self.deletes else ():
            stream["deletes"] = self.deletes
        return block

    # --- what a type says

    def prepare(self) -> None:
        """Make the empty source."""
        raise NotImplementedError

    def build(self) -> dict[str, Any]:
        """The source's block of the YAML."""
        raise NotImplementedError

    def write(self, stream: str, changed: list[Row]) -> None:
        """Store rows that are new or have changed; `self.rows` holds them already."""
        raise NotImplementedError

    def delete(self, stream: str, row: Row) -> None:
        raise NotImplementedError

    def add_bad_row(self) -> None:
        """Add a row to `orders` that cannot be loaded."""
        raise NotImplementedError

    def break_stream(self) -> None:
        """Let `stores` be unreadable."""
        raise NotImplementedError

    def fix_stream(self) -> None:
        raise NotImplementedError


class Destination:
    """A destination of one kind, asked past the product's own connections."""

    type: ClassVar[str]

    def __init__(self, settings: Settings, environ: Callable[[str, str], None], get_fixture: Callable[[str], Any]) -> None:
        self.settings, self.environ, self.get_fixture = settings, environ, get_fixture
        self.secret = ""
        self.prepare()

    def prepare(self) -> None:
        """Make the empty destination."""

    def build(self) -> dict[str, Any]:
        """The `destination:` block of the YAML."""
        raise NotImplementedError

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """What is committed; no rows where nothing was ever loaded."""
        raise NotImplementedError
