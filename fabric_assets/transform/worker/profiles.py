"""A tenant's destination -> dbt's profiles.yml for one run, in the run's own folder.

The file names the password's variable, not the password. dbt reads `DBT_ENV_SECRET_*` only for profiles, refuses it to models and removes it from its logs. So
the password is not on the disk, and is not read as Jinja or YAML.
"""

import json
import os
from pathlib import Path

from fabric_assets.private_files import make_private_folder
from fabric_assets.transform.worker.adapters.adapter import PASSWORD_VARIABLE, Login, get_adapter

# The name of the profile, whatever name the project asks for.
PROFILE = "fabric"


def write_profile(folder: Path, destination: Login) -> None:
    """Write profiles.yml, readable only by its owner, and put the password into the variable that dbt reads.

    Raises:
        ConfigurationError: the URL has a parameter that dbt cannot pass on.
    """
    adapter = get_adapter(destination["type"])
    if (password := adapter.get_password(destination)) is not None:
        os.environ[PASSWORD_VARIABLE] = password
    output = adapter.build_output(destination, spill=make_spill_folder(folder))
    content = {PROFILE: {"target": "fabric", "outputs": {"fabric": output}}}
    descriptor = os.open(folder / "profiles.yml", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(content, stream)  # JSON is YAML


def make_spill_folder(folder: Path) -> Path:
    """Create the folder that the engine may spill to, below the run's own. It holds nothing else, because models can write there."""
    return make_private_folder(folder / "spill")
