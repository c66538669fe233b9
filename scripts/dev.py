"""`make dev`: Dagster's UI and daemon on the demo's data, and the demo's API beside them.

All three share one DAGSTER_HOME with `fabric run`: what either of them ran, the UI shows.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from fabric_assets.env_file import load_env_file
from fabric_assets.factories.instance.opening import prepare_home
from fabric_assets.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# Dagster itself waits 60 s for its webserver, then 60 s for its daemon, and kills neither's children.
_ORDERLY_SECONDS, _TERMINATE_SECONDS = 20.0, 5.0


def main() -> int:
    """Serve until Ctrl-C; no process stays behind."""
    os.chdir(ROOT)
    load_env_file()  # runs read it again when they start, although Dagster works in another folder
    # A shell may start a background job with Ctrl-C ignored, and Dagster would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings = load_settings()
    home = os.environ.setdefault("DAGSTER_HOME", str(prepare_home(settings, root=ROOT)))
    # Dagster runs in its home: in another folder with a dagster.yaml it would warn that the file there is not in force.
    os.environ |= {
        "FABRIC_TENANTS_DIR": str(settings.tenants_dir),
        "FABRIC_DBT_PROJECT_DIR": str(settings.dbt_project_dir),
        "FABRIC_DATA_DIR": str(settings.data_dir),
        "FABRIC_PUBLISH_DIR": str(settings.publish_dir),
        "PYTHONWARNINGS": "ignore:Function `dev_command` is superseded",
    }
    if code := subprocess.call([str(BIN / "fabric"), "demo", "--prepare"]):
        return code
    port = os.environ.get("PORT") or "3000"
    workspace = str(ROOT / "workspace.yaml")
    # Groups of their own: Ctrl-C comes here alone and is passed on once, since Dagster takes a second one as "stop without cleaning up".
    with subprocess.Popen([sys.executable, "-m", "fabric_assets.demo.api"], process_group=0) as api:
        command = [str(BIN / "dagster"), "dev", "--host", "127.0.0.1", "--port", port, "--workspace", workspace]
        with subprocess.Popen(command, cwd=home, process_group=0) as dagster:
            stops = list[float]()

            def stop(*_: object) -> None:
                if not stops:
                    stops.append(time.monotonic())
                    dagster.send_signal(signal.SIGINT)

            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, stop)
            print(f"Dagster will be at http://127.0.0.1:{port}; stop it with Ctrl-C", file=sys.stderr)
            while dagster.poll() is None and not (stops and time.monotonic() - stops[0] > _ORDERLY_SECONDS):
                time.sleep(0.1)
            end_group(dagster.pid)
            code = dagster.wait()
        api.terminate()
    return max(code, 0)


def end_group(group: int) -> None:
    """End what is left of a process group: webserver, daemon, code server and runs of a Dagster that has not ended in time."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        ends = time.monotonic() + _TERMINATE_SECONDS
        while time.monotonic() < ends:
            os.killpg(group, 0)
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
