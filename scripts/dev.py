"""`make dev`: Dagster's UI and daemon on the demo's data, and the demo's API beside them.

All three share one DAGSTER_HOME with `fabric run`: what either of them ran, the UI shows.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from dotenv import load_dotenv

from fabric_assets.factories.instance import prepare_home
from fabric_assets.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def main() -> int:
    """Serve until Ctrl-C; no process stays behind."""
    os.chdir(ROOT)
    load_dotenv(".env")
    # A signal to stop ends as an exception here, so that the API goes too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.setdefault("DAGSTER_HOME", str(prepare_home(load_settings(), root=ROOT)))
    port = os.environ.get("PORT") or "3000"
    if code := subprocess.call([str(BIN / "fabric"), "demo", "--prepare"]):
        return code
    with subprocess.Popen([sys.executable, "-m", "fabric_assets.demo.api"]) as api:
        try:
            print(f"Dagster will be at http://127.0.0.1:{port}; stop it with Ctrl-C", file=sys.stderr)
            return subprocess.call([str(BIN / "dagster"), "dev", "--host", "127.0.0.1", "--port", port, "--workspace", "workspace.yaml"])
        except KeyboardInterrupt:
            return 0
        finally:
            api.terminate()


if __name__ == "__main__":
    sys.exit(main())
