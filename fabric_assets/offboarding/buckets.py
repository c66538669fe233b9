"""A tenant's inboxes in buckets -> their objects counted and deleted, with archive and quarantine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.files.listing import open_bucket
from fabric_assets.errors import SourceUnavailable
from fabric_assets.settings import Settings


def count_objects(config: TenantConfig | None, settings: Settings) -> dict[str, dict[str, int]]:
    """Count objects and bytes below each inbox's prefix.

    Raises:
        SourceUnavailable: a bucket cannot be reached.
    """
    counts = {}
    for path, bucket, base in _open_buckets(config, settings):
        with _reached(path):
            found = _find(bucket, base)
        counts[path] = {"objects": len(found), "bytes": sum(found.values())}
    return counts


def delete_objects(config: TenantConfig | None, settings: Settings) -> None:
    """Delete the tenant's objects in the buckets of its inboxes.

    Raises:
        SourceUnavailable: a bucket cannot be reached, or refuses.
    """
    for path, bucket, base in _open_buckets(config, settings):
        with _reached(path):
            if found := list(_find(bucket, base)):
                bucket.rm(found)


def _open_buckets(config: TenantConfig | None, settings: Settings) -> Iterator[tuple[str, Any, str]]:
    for name, source in (config.sources if config else {}).items():
        if isinstance(source, CsvImportSource) and "://" in source.path and not source.path.startswith("file://"):
            assert config is not None
            context = SourceContext(config.tenant, name, source, tuple(source.streams), settings)
            yield source.path, open_bucket(context, source, context.describe()), source.path.partition("://")[2].rstrip("/")


def _find(bucket: Any, base: str) -> dict[str, int]:
    """Find the objects below a prefix, not beside it: acme/ads, never acme/ads_old."""
    try:
        found = bucket.find(base, detail=True)
    except FileNotFoundError:
        return {}
    return {path: info.get("size") or 0 for path, info in found.items() if path.startswith(f"{base}/")}


@contextmanager
def _reached(path: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, OSError) as error:
        raise SourceUnavailable(
            f"the bucket of the inbox {path} cannot be reached, or refuses: {type(error).__name__}",
            remedy="its login must be allowed to list and delete; then call this again, which goes on from here",
        ) from None
