"""`make demo-postgres`: the demo's tenants as they are, but on one Postgres, each with a role and schemas of its own.

DEMO_POSTGRES_URL names the server, with a login that may create roles and schemas. The demo leaves its data there and in the data folder, so a second run is
incremental. Without DEMO_POSTGRES_URL the demo starts a server of its own, and removes it with all its data at the end. Root may not run Postgres, so its files
could not be in the project's private data folder.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import yaml
from cryptography.fernet import Fernet
from dotenv import load_dotenv
from sqlalchemy.engine import make_url

from fabric_assets.errors import ConfigurationError
from fabric_assets.private_files import make_private_folder
from fabric_assets.settings import load_settings
from scripts.local_postgres import PostgresServer

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "DEMO_POSTGRES_URL"


def main(*options: str) -> int:
    """Run the demo; give its exit code.

    Args:
        options: of `fabric demo`.
    """
    load_dotenv(ROOT / ".env")
    # As an exception, so that the server does not outlive a `kill`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if url := os.environ.get(VARIABLE):
        folder = load_settings(root=ROOT).data_dir / "demo_postgres"
        return run_demo(url, folder, *options)
    with start_server() as url, tempfile.TemporaryDirectory(prefix="fabric-demo-") as folder:
        code = run_demo(url, Path(folder), *options)
    print(
        f"\nThe server and its data are gone again. To keep them, name a server of yours: {VARIABLE}=postgresql://user:password@host/database", file=sys.stderr
    )
    return code


@contextlib.contextmanager
def start_server() -> Iterator[str]:
    """Give the URL of a superuser of a server that lives as long as the block, and asks everybody for a password."""
    server, password = PostgresServer(), secrets.token_urlsafe(16)
    try:
        server.start()
        print(f"started a Postgres on 127.0.0.1:{server.port}", file=sys.stderr)
        with contextlib.closing(psycopg2.connect(server.get_url())) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"alter role postgres password '{password}'")
                cursor.execute("create database warehouse")
                (server.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
                cursor.execute("select pg_reload_conf()")
        yield f"postgresql://postgres:{password}@127.0.0.1:{server.port}/warehouse"
    finally:
        server.remove()


def run_demo(url: str, folder: Path, *options: str) -> int:
    """Provision the demo's tenants on a server, then load and model them there.

    Args:
        url: of a login that may make roles and schemas.
        folder: the demo's own FABRIC_DATA_DIR.
    """
    make_private_folder(folder)
    login = make_url(url)
    environ = {name: value for name, value in os.environ.items() if name not in {VARIABLE, "FABRIC_TENANTS", "FABRIC_PROVISION_URL", "DAGSTER_HOME"}}
    environ |= {
        "FABRIC_TENANTS_DIR": str(write_tenants(folder)),
        "FABRIC_DBT_PROJECT_DIR": str(ROOT / "dbt_project"),
        "FABRIC_DATA_DIR": str(folder),
        "FABRIC_SECRET_KEYS": os.environ.get("FABRIC_SECRET_KEYS") or read_key(folder),
    }
    write_private(folder / "warehouse_url", login._replace(username=None, password=None).render_as_string(hide_password=False))
    fabric = str(Path(sys.executable).with_name("fabric"))
    provisioned = subprocess.run([fabric, "provision", "--all"], env={**environ, "FABRIC_PROVISION_URL": url}, cwd=ROOT, stdout=sys.stderr, check=False)
    return provisioned.returncode or subprocess.run([fabric, "demo", *options], env=environ, cwd=ROOT, check=False).returncode


def write_tenants(folder: Path) -> Path:
    """Copy the tenants; their defaults alone say another destination."""
    tenants = folder / "tenants"
    shutil.rmtree(tenants, ignore_errors=True)
    shutil.copytree(ROOT / "tenants", tenants)
    defaults = yaml.safe_load((tenants / "_defaults.yaml").read_text())
    defaults["destination"] = {"type": "postgres", "url": {"file": "warehouse_url"}, "managed": True}
    (tenants / "_defaults.yaml").write_text(yaml.safe_dump(defaults, sort_keys=False))
    return tenants


def read_key(folder: Path) -> str:
    """Read the demo's own key of the sealed store, for an environment without a key."""
    file = folder / "key"
    if not file.exists():
        write_private(file, Fernet.generate_key().decode())
    return file.read_text()


def write_private(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
