"""The tenants' folder -> each tenant's file; files whose names begin with _ or . belong to no tenant."""

from dataclasses import dataclass
from pathlib import Path

from fabric_assets.errors import ConfigurationError

DEFAULTS = "_defaults"
TEMPLATES = "_templates"
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class TenantFiles:
    """Tenants by their file's stem.

    Args:
        doubles: the second file of a tenant that has both a .yaml and a .yml.
    """

    paths: dict[str, Path]
    doubles: dict[str, Path]


def get_tenant_files(folder: Path) -> TenantFiles:
    """List the tenants' files.

    Raises:
        ConfigurationError: the folder is missing or cannot be read.
    """
    try:
        entries = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith(("_", ".")))
    except OSError as error:
        raise ConfigurationError(
            f"the tenants' folder {folder} cannot be read: {error.strerror}",
            remedy="run in the project's folder, or set FABRIC_TENANTS_DIR to the folder that holds the tenants' YAML files",
        ) from error
    paths: dict[str, Path] = {}
    doubles: dict[str, Path] = {}
    for path in entries:
        (doubles if path.stem in paths else paths)[path.stem] = path
    return TenantFiles(paths, doubles)


def get_shared_file(folder: Path, stem: str) -> Path | None:
    """Find the file of the defaults or of a template; None if it does not exist."""
    return next((path for suffix in _SUFFIXES if (path := folder / f"{stem}{suffix}").is_file() or path.is_symlink()), None)


def get_template_names(folder: Path) -> list[str]:
    """List the templates below a tenants' folder."""
    templates = folder / TEMPLATES
    if not templates.is_dir():
        return []
    return sorted({path.stem for path in templates.iterdir() if path.suffix in _SUFFIXES and not path.name.startswith((".", "_"))})
