"""What walls cost: a fleet's roles and schemas made on one Postgres, a second pass that finds nothing to do, one tenant dropped.

    uv run python -m benchmarks.provision [--tenants 1000] [--tables 10] [--url postgresql://postgres@localhost/postgres]

Each command is a whole process. Without --url a server is started for it. Prints the table for docs/performance.md; exit code 1 where a figure is over
its limit.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
from cryptography.fernet import Fernet

from benchmarks.loads_database import open_server
from fabric_assets.config.loader import load_fleet
from fabric_assets.security.roles.belongings import drop_belongings, list_belongings
from fabric_assets.security.roles.server import open_server as open_login
from fabric_assets.settings import load_settings
from fabric_assets.transform.entitlements import build_entitlements, get_server_login

ROOT = Path(__file__).resolve().parent.parent
DATABASE = "fabric_benchmark"
# Tables that a transaction of the benchmark makes: each takes locks until its end.
_BATCH = 100
_TENANT = """version: 1
tenant: {name}
destination: {{type: postgres, url: {{env: WAREHOUSE_ADDRESS}}, managed: true}}
sources:
  shop: {{type: sql_database, url: {{env: SHOP_URL}}, streams: {{orders: {{primary_key: id}}}}}}
  crm: {{type: sql_database, url: {{env: SHOP_URL}}, streams: {{contacts: {{primary_key: id}}}}}}
"""


def write_fleet(folder: Path, tenants: int, url: str) -> dict[str, str]:
    """Write the tenants' YAML; gives the environment that provisions them."""
    (folder / "tenants").mkdir()
    for number in range(tenants):
        (folder / "tenants" / f"tenant_{number}.yaml").write_text(_TENANT.format(name=f"tenant_{number}"))
    parts = urlsplit(url)
    return {
        "FABRIC_TENANTS_DIR": str(folder / "tenants"),
        "FABRIC_DBT_PROJECT_DIR": str(ROOT / "dbt_project"),
        "FABRIC_DATA_DIR": str(folder / "data"),
        "FABRIC_SECRET_KEYS": Fernet.generate_key().decode(),
        "FABRIC_PROVISION_URL": url,
        "WAREHOUSE_ADDRESS": f"postgresql://{parts.hostname}:{parts.port or 5432}{parts.path}",
    }


def provision(environ: dict[str, str], *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("fabric")), "provision", "--all", *arguments]
    done = subprocess.run(command, env={**os.environ, **environ}, cwd=environ["FABRIC_TENANTS_DIR"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def fill(url: str, tenants: int, tables: int) -> None:
    """Give each tenant its tables, as its loads would make them."""
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        for start in range(0, tenants, max(_BATCH // max(tables, 1), 1)):
            for number in range(start, min(start + max(_BATCH // max(tables, 1), 1), tenants)):
                cursor.execute(f"set local role fabric_tenant_{number}")
                for table in range(tables):
                    cursor.execute(f"create table tenant_{number}_raw_shop.table_{table} as select * from generate_series(1, 100) as id")
            connection.commit()


def drop_one(environ: dict[str, str], name: str) -> None:
    """Count what a tenant has, and drop it, as `fabric offboard` does on the server."""
    settings = load_settings(environ)
    tenant = load_fleet(settings).tenants[name].config
    with open_login(get_server_login(tenant, settings, environ)) as server:
        entitlements = build_entitlements(tenant, None, settings)
        found = list_belongings(server, entitlements)
        if not found or drop_belongings(server, entitlements):
            raise SystemExit(f"{name} was not dropped: {found}")


def measure(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--tables", type=int, default=10, help="tables of each tenant, made after its schemas")
    parser.add_argument("--url", help="a superuser's, of a server that may be filled; its database fabric_benchmark is made and dropped")
    options = parser.parse_args()
    number = options.tenants
    with open_server(options.url) as databases, tempfile.TemporaryDirectory(prefix="fabric-benchmark-") as name:
        url = databases.make(DATABASE)
        environ = write_fleet(Path(name), number, url)
        os.environ |= environ
        first = measure(lambda: provision(environ))
        fill(url, number, options.tables)
        second = measure(lambda: provision(environ))
        check = measure(lambda: provision(environ, "--check"))
        dropped = measure(lambda: drop_one(environ, f"tenant_{number // 2}"))
        if options.url:
            for index in range(number):
                with contextlib.suppress(SystemExit):
                    drop_one(environ, f"tenant_{index}")
            databases.drop(DATABASE)
    figures = [
        (f"{number:,} tenants provisioned", first, 60),
        ("a second pass that finds nothing to do", second, 5),
        ("`--check` that finds nothing", check, 5),
        (f"one of {number:,} dropped from the server", dropped, 10),
    ]
    print(f"| figure ({number:,} tenants, 8 schemas and {options.tables} tables each) | result | limit |\n| --- | --- | --- |")
    for label, seconds, limit in figures:
        print(f"| {label} | {seconds:.1f} s | {limit} s |")
    sys.exit(any(seconds > limit for _, seconds, limit in figures))


if __name__ == "__main__":
    main()
