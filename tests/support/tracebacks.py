"""The file that a message of an own fault names -> its text, which must be private and the tenant's."""

import re
import stat

from fabric_assets.settings import Settings


def read_traceback(settings: Settings, tenant: str, message: str) -> str:
    """Read the one file that the message names.

    Args:
        tenant: empty for a fault in no single tenant's work.
    """
    (name,) = set(re.findall(r"traceback: (?:FABRIC_DATA_DIR|\S+?)/errors/(\S+\.txt)", message))
    file = settings.data_dir / "errors" / name
    assert name.partition("/")[0] == (tenant or "_platform")
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    text = file.read_text()
    assert f"tenant: {tenant or '(no single one)'}\n" in text
    return text
