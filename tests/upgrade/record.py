"""Record a data folder with a release, for the tests of later ones: every source type, both destinations, states, rejects, secrets, Dagster's storage.

Run it with the Python of the release's own environment, from the release's folder; tests/upgrade/ need not be part of it:

    .venv/bin/python PATH/TO/tests/upgrade/record.py --out 2026-11-f4ad479.tar.xz \
        --postgres postgresql://postgres@127.0.0.1:5432 --mysql mysql+pymysql://root@127.0.0.1:3306

The servers have to be test servers: it makes and drops databases and roles that are named below.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import psycopg2
import pymysql

sys.path[:0] = [str(Path(__file__).parent), str(Path.cwd())]
import world  # type: ignore[import-not-found]  # noqa: E402

DATABASES = ("upgrade_warehouse", "upgrade_source")
ROLES = ("fabric_old_managed", "fabric_old_managed_ro")
# A key of these files alone.
KEY = "V2hvIHJlYWRzIHRoaXMgb3BlbnMgdGVzdCBkYXRhISE="


def main() -> None:
    options = argparse.ArgumentParser()
    for name in ("--out", "--postgres", "--mysql"):
        options.add_argument(name, required=True)
    options.add_argument("--root", default="/srv/etl-fabric", help="a folder whose name may stand in Dagster's storage")
    arguments = options.parse_args()
    root = Path(arguments.root)
    if root.exists():
        sys.exit(f"{root} exists already")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        stack.callback(drop_databases, arguments.postgres, arguments.mysql)
        drop_databases(arguments.postgres, arguments.mysql)
        record(root, arguments.postgres, arguments.mysql)
        dump_warehouse(root, arguments.postgres)
        find_traces(root)
        pack(root, Path(arguments.out))


def record(root: Path, postgres: str, mysql: str) -> None:
    data, project = root / "data", root / "dbt_project"
    data.mkdir(parents=True, mode=0o700)
    world.write_tenants(root / "tenants")
    shutil.copytree("dbt_project", project, ignore=shutil.ignore_patterns("models", "tests", "target", "logs", "seeds", "snapshots", "*.csv", ".user.yml"))
    (project / "tests").mkdir(exist_ok=True)
    for name, text in world.MODELS.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    make_databases(postgres, mysql)
    sqlite, step = root / "lite.sqlite", [1]
    with world.serve(step) as api:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("FABRIC_", "DAGSTER_", "PG"))} | {
            "FABRIC_TENANTS_DIR": str(root / "tenants"),
            "FABRIC_DBT_PROJECT_DIR": str(project),
            "FABRIC_DATA_DIR": str(data),
            "FABRIC_SECRET_KEYS": KEY,
            "FABRIC_PROVISION_URL": f"{postgres}/upgrade_warehouse",
            "WAREHOUSE_URL": f"{postgres}/upgrade_warehouse",
            "WAREHOUSE_ADDRESS": f"postgresql://{postgres.partition('@')[2]}/upgrade_warehouse",
            "LITE_URL": f"sqlite:///{sqlite}",
            "PG_URL": f"{postgres}/upgrade_source",
            "MY_URL": f"{mysql}/upgrade_source",
            "API_URL": api,
        }

        def run(*words: str, given: str = "", codes: tuple[int, ...] = (0,)) -> str:
            done = subprocess.run(
                [str(Path(sys.executable).with_name("fabric")), *words], env=environ, cwd=root, input=given, capture_output=True, text=True, check=False
            )
            if done.returncode not in codes:
                sys.exit(f"fabric {' '.join(words)}: {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
            return done.stdout

        for tenant in world.TENANTS:
            run("secrets", "set", tenant, "crm_token", given=world.TOKEN)
        run("provision", "old_managed")
        runs: list[Any] = []
        for number in (1, 2, 2):
            if number == 1 or len(runs) == 1:
                step[0] = number
                world.fill(number, sqlite=sqlite, postgres=environ["PG_URL"], mysql=environ["MY_URL"])
                world.drop_files(number, data)
            # A quarantined file fails its check, if a release says so.
            runs.append(json.loads(run("run", "--all", "--json", codes=(0, 1))))
            failed = [asset for tenant in runs[-1]["tenants"] for asset in tenant["assets"] if asset["status"] != "success"]
            if failed or not all(tenant["assets"] for tenant in runs[-1]["tenants"]):
                sys.exit(json.dumps(runs[-1], indent=1)[-6000:])
        expected = {
            "assets": {tenant["tenant"]: sorted(asset["key"] for asset in tenant["assets"]) for tenant in runs[0]["tenants"]},
            # What a load without anything new loads.
            "rows_loaded": {asset["key"]: asset["rows_loaded"] for tenant in runs[2]["tenants"] for asset in tenant["assets"]},
            "rejects": {tenant: len(json.loads(run("rejects", "list", tenant, "--json"))) for tenant in world.TENANTS},
            "tables": {tenant: world.read_tables(tenant, data, environ["WAREHOUSE_URL"]) for tenant in world.TENANTS},
        }
    (root / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1, sort_keys=True))
    for folder in ("dbt", "loads", "locks"):
        shutil.rmtree(data / folder, ignore_errors=True)


def dump_warehouse(root: Path, postgres: str) -> None:
    """The warehouse as SQL that any driver can run: roles with their verifiers, schemas, rows."""
    url = f"{postgres}/upgrade_warehouse"
    dumped = subprocess.run(["pg_dump", "--inserts", url], capture_output=True, text=True, check=True).stdout
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("select rolname, rolcanlogin, rolpassword from pg_authid where rolname = any(%s) order by rolname", (list(ROLES),))
        roles = [
            f"create role {name} {'login' if login else 'nologin'}{f' password {verifier!r}' if verifier else ''};"
            for name, login, verifier in cursor.fetchall()
        ]
    lines = [line for line in dumped.splitlines() if line and not line.startswith(("--", "\\", "SET ", "SELECT pg_catalog.set_config"))]
    (root / "warehouse.sql").write_text("\n".join([*roles, *lines]) + "\n")


def find_traces(root: Path) -> None:
    """Refuse to pack files that name this machine's folders or the login of the recording."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            for trace in (str(Path.cwd()), str(Path(__file__).parent), f"{Path.home()}/", "/tmp/"):
                if trace.encode() in content:
                    position = content.index(trace.encode())
                    sys.exit(f"{path} names {trace}: ...{content[max(position - 80, 0) : position + 120]!r}")


def pack(root: Path, out: Path) -> None:
    with tarfile.open(out, "w:xz", preset=9) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.name.endswith((".lock", "-wal", "-shm")):
                info = tarfile.TarInfo(str(path.relative_to(root)))
                content = path.read_bytes()
                info.size, info.mode = len(content), 0o600
                archive.addfile(info, io.BytesIO(content))
    print(f"{out}: {out.stat().st_size:,} bytes")


def make_databases(postgres: str, mysql: str) -> None:
    with contextlib.closing(psycopg2.connect(f"{postgres}/postgres")) as connection:
        connection.autocommit = True
        for name in DATABASES:
            connection.cursor().execute(f"create database {name} template template0")
    with contextlib.closing(connect_mysql(mysql)) as connection:
        connection.cursor().execute("create database upgrade_source character set utf8mb4")


def drop_databases(postgres: str, mysql: str) -> None:
    with contextlib.closing(psycopg2.connect(f"{postgres}/postgres")) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        for name in DATABASES:
            cursor.execute(f"drop database if exists {name} with (force)")
        for role in ROLES:
            cursor.execute("select 1 from pg_roles where rolname = %s", (role,))
            if cursor.fetchone():
                cursor.execute(f"drop owned by {role}; drop role {role}")
    with contextlib.closing(connect_mysql(mysql)) as connection:
        connection.cursor().execute("drop database if exists upgrade_source")


def connect_mysql(url: str) -> Any:
    parts = world.urlsplit(url)
    return pymysql.connect(host=parts.hostname or "127.0.0.1", port=parts.port or 3306, user=parts.username, password=parts.password or "")


if __name__ == "__main__":
    main()
