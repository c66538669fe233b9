"""A loaded tenant -> every value in force with the file and line that it comes from; what `fabric explain` shows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from fabric_assets.config.base import Path, SecretRef
from fabric_assets.config.loader import LoadedTenant, Origin
from fabric_assets.config.sources.streams import StreamConfig


@dataclass(frozen=True)
class EffectiveValue:
    """One value in force.

    Args:
        value: as JSON has it; a reference to a secret stays a reference.
        origin: None for a default.
    """

    path: Path
    value: object
    origin: Origin | None

    @property
    def dotted(self) -> str:
        """The path as error messages write it."""
        return ".".join(str(part) for part in self.path)


def get_effective_values(loaded: LoadedTenant) -> Iterator[EffectiveValue]:
    """Yield each value in force, also the defaults; keys that are not set and have no default are left out."""
    for path, value in _flatten(loaded.config, ()):
        yield EffectiveValue(path, value, loaded.origins.get(path))


def _flatten(value: Any, path: Path) -> Iterator[tuple[Path, object]]:
    if isinstance(value, SecretRef):
        yield path, value.model_dump(exclude_none=True)
    elif isinstance(value, BaseModel):
        plain = value.model_dump(mode="json")
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            if name == "write_disposition" and isinstance(value, StreamConfig):
                yield (*path, name), value.disposition
            elif isinstance(inner, BaseModel | dict) or (isinstance(inner, tuple) and any(isinstance(item, BaseModel) for item in inner)):
                yield from _flatten(inner, (*path, field.alias or name))
            elif inner is not None:
                yield (*path, field.alias or name), plain[name]
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(item, (*path, key))
    elif isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
        for index, item in enumerate(value):
            yield from _flatten(item, (*path, index))
    else:
        yield path, list(value) if isinstance(value, tuple) else value
