"""`make demo-postgres`: the demo's tenants on a server that it starts itself, each with a role of its own, and nothing left behind."""

import contextlib
import json
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from fabric_assets.demo.data import prepare_demo
from scripts.demo_postgres import run_demo, start_server, write_tenants
from tests.conftest import ROOT
from tests.support.lengths import AT_FULL_LENGTH

TENANTS = ("demo_ads", "demo_api", "demo_connectors", "demo_database", "demo_files")


# With the tests of the fleet, which use the same parse of the dbt project.
pytestmark = [pytest.mark.xdist_group("deploy"), pytest.mark.timeout(600)]


@AT_FULL_LENGTH
def test_the_whole_demo_runs_on_a_postgres_of_its_own(parsed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    prepare_demo(data, max_orders=300)
    shutil.copytree(parsed, data / "dbt" / "prepared")
    with start_server() as url:
        code = run_demo(url, data, "--json")
        said = capfd.readouterr()
        assert code == 0, said.err[-4000:]
        answer = json.loads(said.out)
        assert answer["equal"] is True
        assert {tenant["tenant"]: (tenant["status"], tenant["models"]) for tenant in answer["tenants"]} == {
            name: ("success", 8 if name == "demo_ads" else 12) for name in TENANTS
        }
        with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute("select tableowner, count(*) from pg_tables where schemaname like 'demo%' group by 1 order by 1")
            assert [(owner, count > 0) for owner, count in cursor.fetchall()] == [(f"fabric_{name}", True) for name in TENANTS]
            cursor.execute("select has_schema_privilege('fabric_demo_ads', 'demo_api_marts', 'usage')")
            assert cursor.fetchone() == (False,)
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(url.replace(urlsplit(url).password or "", "guessed"))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", urlsplit(url).port or 0)) != 0
    assert (data / "key").stat().st_mode & 0o077 == 0


def test_its_tenants_differ_from_the_demos_only_in_their_destination(tmp_path: Path) -> None:
    written = {file.relative_to(tmp_path / "tenants"): file.read_text() for file in write_tenants(tmp_path).rglob("*.yaml")}
    own = {file.relative_to(ROOT / "tenants"): file.read_text() for file in (ROOT / "tenants").rglob("*.yaml")}
    assert {name for name in own if own[name] != written[name]} == {Path("_defaults.yaml")}
    assert set(written) == set(own)
