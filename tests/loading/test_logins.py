"""How often a load resolves the login of its destination: each time is a file read, or a token unsealed."""

import os
import subprocess
import sys
from pathlib import Path

from fabric_assets.settings import Settings
from tests.support.shop import SourceDatabase, Tenant

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own: an audit hook stays for as long as its process lives.
LOAD = """
import json, sys
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.loading.load import run_load
from fabric_assets.rows.reports import LoadRequest
from fabric_assets.settings import load_settings

opened = []
sys.addaudithook(lambda event, arguments: opened.append(1) if event == "open" and str(arguments[0]).endswith("/acme_warehouse") else None)
tenant = TenantConfig.model_validate_json(sys.stdin.read())
request = LoadRequest(tenant, "shop", (), load_settings(), run_id="second", earlier_runs=("first",))
print(json.dumps([[report.table_name for report in run_load(request)], len(opened)]))
"""


def test_a_load_resolves_its_destinations_login_once(settings: Settings, sqlite: SourceDatabase, postgres_database: str) -> None:
    """The lease, the sessions, what earlier runs have loaded and the tables' full names share it."""
    sqlite.run("create table orders (id integer primary key)", "create table items (id integer primary key)")
    tenant = Tenant(settings, sqlite.build_source(orders={"primary_key": "id"}, items={"primary_key": "id"}), warehouse=postgres_database)
    child = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=tenant.config.model_dump_json(exclude_unset=True),
        cwd=ROOT,
        env=os.environ | {"FABRIC_DATA_DIR": str(settings.data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    database = postgres_database.rpartition("/")[2].partition("?")[0]
    tables = ", ".join(f'"{database}.acme_raw_shop.{stream}"' for stream in ("orders", "items"))
    assert child.stdout.splitlines()[-1] == f"[[{tables}], 1]"
