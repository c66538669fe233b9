"""packages.yml, package-lock.yml and the installed packages of the dbt project -> why they do not match.

A parse takes the packages as they are installed. Only `fabric prepare` installs them (`transform/packages.py`), so no run depends on dbt's hub.
"""

import os
import re
from pathlib import Path

from dbt.config.project import load_yml_dict, package_and_project_data_from_root, package_config_from_data
from dbt.config.renderer import PackageRenderer
from dbt.task.deps import _create_sha1_hash
from dbt_common.context import set_invocation_context
from dbt_common.exceptions import DbtBaseException

from fabric_assets.errors import ConfigurationError
from fabric_assets.transform.fingerprint import LOCK_FILE, PACKAGES_FILES, PACKAGES_FOLDER, digest_packages_files, get_packages_folder, get_packages_record

_SECRET = re.compile(r"\bDBT_ENV_SECRET_\w+")


def find_unresolved(project: Path) -> str:
    """Find why the project's packages have to be resolved; empty where they are.

    The record of the last `fabric prepare` counts. Without one, as in a new copy of the project or after `dbt deps`, the lock file counts as for dbt.

    Raises:
        ConfigurationError: the project installs its packages in another folder.
    """
    try:
        settings = load_yml_dict(str(project / "dbt_project.yml"))
        entries, file = package_and_project_data_from_root(str(project))
    except (DbtBaseException, TypeError):
        return ""  # the parse itself reports it
    if not isinstance(settings, dict) or not isinstance(entries, dict) or not entries.get("packages"):
        return ""
    if (elsewhere := settings.get("packages-install-path", PACKAGES_FOLDER)) != PACKAGES_FOLDER:
        raise ConfigurationError(f"{project / 'dbt_project.yml'}: packages-install-path is {elsewhere}", remedy=f"leave it out: it is {PACKAGES_FOLDER}")
    if not (project / LOCK_FILE).is_file():
        return f"{file} names packages, and there is no {LOCK_FILE}"
    lock = load_yml_dict(str(project / LOCK_FILE))
    folder = get_packages_folder(project)
    names = [str(entry.get("name", "")) for entry in lock.get("packages", [])]
    if missing := [name for name in names if name and not (folder / name / "dbt_project.yml").is_file()]:
        return f"the package {missing[0]} of {LOCK_FILE} is not in {folder.name}/"
    record = get_packages_record(project)
    if record.is_file():
        return "" if record.read_text() == digest_packages_files(project) else f"{file} or {LOCK_FILE} has changed since `fabric prepare`"
    try:
        allow_missing_secrets(str(project))
        set_invocation_context(os.environ)
        wanted = _create_sha1_hash(package_config_from_data(PackageRenderer({}).render_data(entries), entries).packages)
    except (DbtBaseException, TypeError):
        return ""  # the parse itself reports it
    return "" if wanted == lock.get("sha1_hash") else f"{file} has changed since {LOCK_FILE} was written"


def allow_missing_secrets(project_dir: str) -> None:
    """Set the secrets that packages.yml names and nobody has set to an empty text. Every dbt command reads them, and only `dbt deps` needs them."""
    for name in PACKAGES_FILES[:2]:
        if (file := Path(project_dir, name)).is_file():
            for variable in _SECRET.findall(file.read_text(encoding="utf-8", errors="replace")):
                os.environ.setdefault(variable, "")
