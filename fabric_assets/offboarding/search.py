"""Folders -> the files whose bytes or names still name a tenant. This half of the proof relies on no list of the files that a tenant has."""

from collections.abc import Callable, Iterable
from pathlib import Path

from fabric_assets.offboarding.local_data import walk
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher


def search_folders(folders: Iterable[Path], matcher: TenantNameMatcher, *, skip: Callable[[Path], bool]) -> list[str]:
    """List each file that names the tenant, with the first match.

    Args:
        skip: paths that do not count as left: the certificate, and what is parsed of the repository.
    """
    found = []
    for folder in get_outermost(folders):
        for file in walk(folder):
            if skip(file):
                continue
            if matcher.found_in(str(file.relative_to(folder))):
                found.append(f"path {file}")
            elif not file.is_symlink() and file.is_file() and (match := matcher.find_in_file(file)):
                found.append(f"file {file}: {match}")
    return sorted(found)


def get_outermost(folders: Iterable[Path]) -> list[Path]:
    """Drop folders inside of others: DAGSTER_HOME may be in FABRIC_DATA_DIR, or the other way round."""
    resolved = {folder.resolve() for folder in folders if folder.is_dir()}
    return sorted(folder for folder in resolved if not any(other in folder.parents for other in resolved))
