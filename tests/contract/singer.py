"""`type: singer`: a tap that reads rows by their bookmark, in an environment of its own."""

import json
from dataclasses import replace
from typing import Any

from tests.contract.source import COLUMNS, Row, Source

TOKEN = "c4n4ry-of-the-tap"


class SingerTap(Source):
    """A tap that is told a secret."""

    type = "singer"
    boundary = 1
    # Python that the tap runs before it reads.
    code = ""
    fixture = "installed_tap"

    def prepare(self) -> None:
        self.settings = replace(self.settings, **self.get_fixture(self.fixture))
        self.secret, self._bad, self._skip = TOKEN, list[dict[str, Any]](), list[str]()
        self.environ("CONTRACT_TAP_TOKEN", TOKEN)
        for name in ("connectors", "connectors_dir"):
            self.environ(f"FABRIC_{name.upper()}", str(getattr(self.settings, name)))
        self.folder = self.settings.data_dir / "tap"
        self.folder.mkdir(parents=True)
        for stream in self.rows:
            self._store(stream)

    def build(self) -> dict[str, Any]:
        return {
            "type": "singer",
            "connector": "rows",
            "folders": {"rows": "tap"},
            "arguments": {"folder": "{rows}", "skip": self._skip, "code": self.code},
            "secrets": {"token": {"env": "CONTRACT_TAP_TOKEN"}},
            "streams": {name: {"cursor": {"field": "seq"}} for name in self.rows},
        }

    def write(self, stream: str, changed: list[Row]) -> None:
        self._store(stream)

    def delete(self, stream: str, row: Row) -> None:
        self._store(stream)

    def add_bad_row(self) -> None:
        self._bad.append({"id": None, "owner": "acme", "note": "bad", "seq": self.next_seq()})
        self._store("orders")

    def break_stream(self) -> None:
        self._skip.append("stores")

    def fix_stream(self) -> None:
        self._skip.clear()

    def _store(self, stream: str) -> None:
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in self.rows[stream].values()] + (self._bad if stream == "orders" else [])
        (self.folder / f"{stream}.json").write_text(json.dumps(rows))
