"""A tenant -> its own files and folders in FABRIC_DATA_DIR, and what is published of it, counted and deleted.

Links are removed, never followed: what they lead to is not the platform's to delete, and is reported as left.
"""

import os
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fabric_assets import naming
from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.config.tenant import TenantConfig

# Folders in which each tenant has a file or a folder of its name.
_OWNED = ("warehouse", "loads", "dbt", "inbox", "secrets", "errors")


@dataclass
class Count:
    """Files and bytes of one kind.

    Args:
        parts: an inbox's files by the folder that they are in: dropped, archive, quarantine.
    """

    files: int = 0
    bytes: int = 0
    parts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if key != "parts" or value}


def find_local_data(
    tenant: str,
    data_dir: Path,
    config: TenantConfig | None,
    runs: Iterable[str] = (),
    *,
    names: Callable[[Path], bool] = lambda file: False,
    publish_dir: Path | None = None,
) -> dict[str, list[Path]]:
    """Find the tenant's own paths that exist, by kind.

    Args:
        names: whether a file names the tenant. A traceback that belongs to no single tenant is deleted with each tenant that it names.
        config: without it, only the inbox at inbox/<tenant> is known.
        runs: ids of its runs, which may have left marks.
        publish_dir: the folder of what readers get, if there is one.
    """
    warehouse = naming.warehouse_file(data_dir, tenant)
    secrets = naming.sealed_secrets_file(data_dir, tenant)
    marks = naming.run_marks_dir(data_dir)
    local_data = {
        "warehouse": [warehouse, *_glob(warehouse.parent, f"{warehouse.name}.*"), *_glob(warehouse.parent, f".{warehouse.name}.*")],
        "loads": [naming.files_dir(data_dir, tenant, "any").parent],
        "dbt": [naming.dbt_dir(data_dir, tenant)],
        "inbox": [*find_inboxes(tenant, data_dir, config)],
        "published": [naming.published_dir(publish_dir, tenant)] if publish_dir else [],
        "errors": [naming.errors_dir(data_dir, tenant), *filter(names, _glob(naming.errors_dir(data_dir, ""), "*"))],
        "secrets": [secrets, *_glob(secrets.parent, f".{secrets.name}.*"), secrets.parent / f".{tenant}.lock"],
        "locks": [naming.lock_file(data_dir, tenant), *(marks / run for run in runs)],
    }
    return {kind: [path for path in paths if path.is_symlink() or path.exists()] for kind, paths in local_data.items()}


def find_inboxes(tenant: str, data_dir: Path, config: TenantConfig | None) -> Iterator[Path]:
    """Find the tenant's inboxes below FABRIC_DATA_DIR, without following links."""
    folders = {Path(naming.inbox_dir(data_dir, tenant))}
    for source in get_csv_sources(config).values():
        if "://" not in source.path or source.path.startswith("file://"):
            folders.add(Path(os.path.normpath(data_dir / source.path.removeprefix("file://"))))
    inside = {folder for folder in folders if folder.is_relative_to(data_dir) and folder != data_dir}
    yield from sorted(folder for folder in inside if not any(other in folder.parents for other in inside))


def get_foreign_paths(tenant: str, data_dir: Path, config: TenantConfig | None) -> list[str]:
    """Describe the operator's folders and files that the tenant's YAML names. An offboarding does not delete them."""
    if config is None:
        return []
    own, foreign = [*find_inboxes(tenant, data_dir, config)], set[str]()
    for source in config.sources.values():
        path = getattr(source, "path", None)
        if isinstance(path, str) and ("://" not in path or path.startswith("file://")):
            folder = Path(os.path.normpath(data_dir / path.removeprefix("file://")))
            if folder not in own and not any(parent in own for parent in folder.parents):
                foreign.add(f"folder {folder}")
            elif folder.is_symlink():
                foreign.add(f"what {folder} was a link to")
    return sorted(foreign)


def is_anothers(path: Path, data_dir: Path, others: Container[str], *, publish_dir: Path | None = None) -> bool:
    """Whether a file is another tenant's own. An offboarding neither searches nor deletes such a file."""
    if publish_dir is not None and path.is_relative_to(publish_dir):
        return path != publish_dir and path.relative_to(publish_dir).parts[0] in others
    if not path.is_relative_to(data_dir):
        return False
    folder, *rest = path.relative_to(data_dir).parts
    return bool(rest) and folder in _OWNED and rest[0].lstrip(".").split(".")[0] in others


def count_local_data(local_data: Mapping[str, Iterable[Path]]) -> dict[str, dict[str, object]]:
    """Count files and bytes of each kind, and an inbox's files by folder."""
    counts = {}
    for kind, paths in local_data.items():
        count = Count()
        for path in paths:
            for file in walk(path):
                count.files += 1
                count.bytes += file.lstat().st_size
                if kind == "inbox":
                    part = next((part for part in file.relative_to(path).parts[:-1] if part in ("archive", "quarantine")), "dropped")
                    count.parts[part] = count.parts.get(part, 0) + 1
        counts[kind] = count.to_json()
    return counts


def delete_paths(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def walk(path: Path) -> Iterator[Path]:
    """List every file below a path, or the path itself if it is a file. A link counts as a file."""
    if path.is_symlink() or not path.is_dir():
        if path.is_symlink() or path.exists():
            yield path
        return
    for root, folders, files in os.walk(path):
        yield from (Path(root, name) for name in files)
        yield from (Path(root, name) for name in folders if Path(root, name).is_symlink())


def get_csv_sources(config: TenantConfig | None) -> dict[str, CsvImportSource]:
    return {name: source for name, source in (config.sources if config else {}).items() if isinstance(source, CsvImportSource)}


def _glob(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) if folder.is_dir() else []
