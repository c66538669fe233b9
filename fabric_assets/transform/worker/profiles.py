"""A tenant's destination -> dbt's profiles.yml for one run, in the run's own folder.

The file names the password's variable, not the password: dbt itself reads `DBT_ENV_SECRET_*` for profiles alone, refuses it to models and strikes it from
its logs. A password is then neither on disk nor taken for Jinja or YAML.
"""

import json
import os
from pathlib import Path

from fabric_assets.private_files import make_private_folder
from fabric_assets.transform.worker.adapters.adapter import PASSWORD_VARIABLE, Login, get_adapter


def write_profile(folder: Path, destination: Login) -> None:
    """Write profiles.yml, for its owner alone, and put the password where dbt finds it.

    Raises:
        ConfigurationError: the URL has a parameter that dbt cannot pass on.
    """
    adapter = get_adapter(destination["type"])
    if (password := adapter.get_password(destination)) is not None:
        os.environ[PASSWORD_VARIABLE] = password
    output = adapter.build_output(destination, spill=make_spill_folder(folder))
    content = {"fabric": {"target": "fabric", "outputs": {"fabric": output}}}
    descriptor = os.open(folder / "profiles.yml", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(content, stream)  # JSON is YAML


def make_spill_folder(folder: Path) -> Path:
    """Make the folder below the run's own that the engine may spill to: it holds nothing else, for models can write there."""
    return make_private_folder(folder / "spill")
