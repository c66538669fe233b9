"""A tenant's name -> the positions at which a text or a file's bytes name that tenant: a key, a dataset, an op or a file. A plain word is no match.

A tenant may be called `shop` while others have sources of that name, or `acme` beside `acme_two`. So the matcher looks for the names that `naming.py` derives
from a tenant's name. It leaves out those of other tenants whose names begin with it.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import AnyStr

from fabric_assets import naming

DBT_SCHEMAS = ("staging", "intermediate", "marts", naming.SEED_SCHEMA, naming.SNAPSHOT_SCHEMA, naming.TEST_SCHEMA)
# What follows the tenant in an asset key, besides a dbt schema.
_KEY_PARTS = ("raw", "config", "isolation")
# The package's own name, which is how a role of a tenant `assets` would be called.
_OWN_NAMES = ("fabric_assets",)
_CHUNK = 4 << 20
# More than any pattern looks at on either side of the name.
_AROUND = 64


class TenantNameMatcher:
    """A matcher of the names that are derived from one tenant's name.

    Args:
        others: every other tenant that is known.
        schemas: dbt schemas without the tenant's prefix, beyond the usual ones.
    """

    def __init__(self, tenant: str, *, others: Iterable[str] = (), schemas: Iterable[str] = ()) -> None:
        self.tenant, self.others = tenant, frozenset(others) - {tenant}
        self._rivals = sorted({name for name in self.others if name.startswith(f"{tenant}_")}, key=len, reverse=True)
        self._schemas = sorted({*DBT_SCHEMAS, *schemas})

    def found_in(self, text: str) -> bool:
        return any(True for _ in _search(self._text, self.tenant, text))

    def is_like_own(self, schema: str) -> bool:
        """Whether a schema's whole name is one that this tenant's schemas have."""
        return naming.is_named_like(self.tenant, schema, self._schemas)

    def is_like_anothers(self, schema: str) -> bool:
        return any(naming.is_named_like(other, schema, self._schemas) for other in self.others)

    def find(self, content: bytes) -> Iterator[tuple[int, int]]:
        """Find the start and end of each match in the bytes of a file, or of a part of one."""
        return _search(self._bytes, self.tenant.encode(), content)

    def find_in_file(self, file: Path) -> str | None:
        """Describe the first match in a file of any size. Give None where nothing names the tenant, or the file is gone."""
        offset, tail = 0, b""
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    content = tail + chunk
                    for start, end in self.find(content):
                        # A match near the end may continue in the next chunk, and be another tenant's name.
                        if len(chunk) < _CHUNK or end + _AROUND < len(content):
                            return f"byte {offset - len(tail) + start:,}: {content[start:end].decode(errors='replace')}"
                    offset += len(chunk)
                    tail = content[-4 * _AROUND :]
        except FileNotFoundError:  # a database's log, which went with its last reader
            return None
        return f"byte {offset:,}, at its end" if any(self.find(tail)) else None

    def found_in_file(self, file: Path) -> bool:
        return self.find_in_file(file) is not None

    def replace(self, text: str, substitute: str) -> str:
        """Replace the tenant's name in every match."""
        return self._text.sub(lambda match: match[0].replace(self.tenant, substitute), text) if self.tenant in text else text

    @cached_property
    def _text(self) -> re.Pattern[str]:
        return re.compile(self._pattern)

    @cached_property
    def _bytes(self) -> re.Pattern[bytes]:
        # SQLite stores the columns of a row next to each other: a tag's key, then its value.
        return re.compile(f"{self._pattern}|tenant{self.tenant}(?![a-z0-9_])".encode())

    @property
    def _pattern(self) -> str:
        name, end = self.tenant, "(?![A-Za-z0-9_])"
        schemas = "|".join(map(re.escape, self._schemas))
        parts = "|".join(map(re.escape, (*_KEY_PARTS, *self._schemas)))
        rivals = "".join(f"(?!{rival}(?![a-z0-9]))" for rival in self._rivals)
        own = "".join(f"(?!{word}{end})" for word in _OWN_NAMES)
        quote = r"\\*[\"']"
        return "|".join(
            (
                rf"(?<![A-Za-z0-9_]){rivals}{name}__[a-z]",  # ops, schedules, sensors, pools
                rf"(?<![A-Za-z0-9_])(?:stg_)?{rivals}{name}_raw_[a-z0-9]",
                rf"(?<![A-Za-z0-9_]){rivals}{name}_(?:fabric|{schemas}){end}",
                rf"(?<![A-Za-z0-9_]){own}fabric_{name}(?:_ro|_bi)?{end}",
                rf"(?<![A-Za-z0-9_./-]){name}/(?:{parts}){end}",  # asset keys as people write them
                rf"\[\s*{quote}{name}{quote}\s*,\s*{quote}(?:{parts}){quote}",  # ... and as Dagster stores them
                rf"{quote}(?:tenant|group_name){quote}\s*[:,]\s*(?:{quote}value{quote}\s*:\s*)?{quote}{name}{quote}",
                rf"(?<![A-Za-z0-9_]){name}\.(?:duckdb|lock|yaml|yml){end}",
                rf"(?<![A-Za-z0-9_])(?:loads|dbt|inbox|warehouse|secrets|errors)/\.?{name}(?![A-Za-z0-9_-])",
                rf"(?<![A-Za-z0-9_])tenant '?{name}(?![A-Za-z0-9_'-])",  # our own messages
            )
        )


def _search(pattern: re.Pattern[AnyStr], name: AnyStr, content: AnyStr) -> Iterator[tuple[int, int]]:
    """Try the pattern only where the name occurs: 50 times as fast as trying it at each byte."""
    position = content.find(name)
    while position >= 0:
        start = max(0, position - _AROUND)
        for match in pattern.finditer(content[start : position + len(name) + _AROUND]):
            if match.start() <= position - start < match.end():
                yield start + match.start(), start + match.end()
                break
        position = content.find(name, position + len(name))
