"""The time to offboard one of many tenants: a whole `fabric offboard`, beside all tenants' schemas, roles, YAML and history in Dagster.

    uv run python -m benchmarks.offboard [--tenants 1000] [--tables 10] [--runs 10] [--url postgresql://postgres@localhost/postgres]

Its peer is what an operator would type into psql instead: `drop owned`, `drop schema` and `drop role` of another tenant. That proves nothing, exports nothing
and leaves files, secrets and history. Without --url a server is started. Exit code 1 where the figure is over its limit.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import dagster as dg
import psycopg2
import yaml

from benchmarks.loads_database import open_server
from benchmarks.provision import ROOT, fill, measure, provision, write_fleet

WAREHOUSE, STORAGE = "fabric_benchmark", "fabric_benchmark_dagster"
LIMIT = 10.0
_EVENTS = 30
# A run of each tenant, and the events of its one step: as large as real ones, which name the tenant ten times.
_RUNS = """
    insert into runs (run_id, pipeline_name, status, run_body)
    select format('run-%%s-%%s', tenant, run), format('tenant_%%s__nightly', tenant), 'SUCCESS', json_build_object(
        'tags', json_build_object('tenant', format('tenant_%%s', tenant)), 'step_keys_to_execute', json_build_array(format('tenant_%%s__shop__load', tenant))
    )::text from generate_series(0, %(tenants)s - 1) as tenant, generate_series(1, %(runs)s) as run;
    insert into run_tags (run_id, key, value)
    select format('run-%%s-%%s', tenant, run), 'tenant', format('tenant_%%s', tenant)
    from generate_series(0, %(tenants)s - 1) as tenant, generate_series(1, %(runs)s) as run;
    insert into event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key)
    select format('run-%%s-%%s', tenant, run),
        repeat(format('{"AssetKey": ["tenant_%%s", "raw", "shop", "orders"], "text": "an event like any other"} ', tenant), 10),
        'ASSET_MATERIALIZATION', now(), format('tenant_%%s__shop__load', tenant), format('["tenant_%%s", "raw", "shop", "orders"]', tenant)
    from generate_series(0, %(tenants)s - 1) as tenant, generate_series(1, %(runs)s) as run, generate_series(1, %(events)s);
    insert into asset_keys (asset_key) select format('["tenant_%%s", "raw", "shop", "orders"]', tenant) from generate_series(0, %(tenants)s - 1) as tenant;
    analyze;
"""


def make_history(home: Path, url: str, tenants: int, runs: int) -> None:
    """Let Dagster make its tables, and fill them."""
    home.mkdir(parents=True)
    config = yaml.safe_load((ROOT / "dagster.yaml").read_text()) | {"storage": {"postgres": {"postgres_url": url}}}
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    with dg.DagsterInstance.from_config(str(home)):
        pass
    with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(_RUNS, {"tenants": tenants, "runs": runs, "events": _EVENTS})


def offboard(environ: dict[str, str], name: str) -> None:
    command = [str(Path(sys.executable).with_name("fabric")), "offboard", name, "--yes", "--json"]
    done = subprocess.run(command, env={**os.environ, **environ}, cwd=environ["FABRIC_TENANTS_DIR"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def drop_by_hand(url: str, name: str) -> None:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"drop owned by fabric_{name} cascade; drop owned by fabric_{name}_ro cascade; drop role fabric_{name}; drop role fabric_{name}_ro")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--tables", type=int, default=10, help="tables of each tenant")
    parser.add_argument("--runs", type=int, default=10, help=f"runs of each tenant in Dagster's storage, of {_EVENTS} events each")
    parser.add_argument("--url", help="a superuser's, of a server that may be filled")
    options = parser.parse_args()
    with open_server(options.url) as databases, tempfile.TemporaryDirectory(prefix="fabric-benchmark-") as name:
        url, storage = databases.make(WAREHOUSE), databases.make(STORAGE)
        home = Path(name) / "home"
        environ = write_fleet(Path(name), options.tenants, url) | {"DAGSTER_HOME": str(home)}
        provision(environ)
        fill(url, options.tenants, options.tables)
        make_history(home, storage, options.tenants, options.runs)
        middle = options.tenants // 2
        seconds = measure(lambda: offboard(environ, f"tenant_{middle}"))
        peer = measure(lambda: drop_by_hand(url, f"tenant_{middle + 1}"))
        if options.url:
            for number in range(options.tenants):
                with contextlib.suppress(psycopg2.Error):
                    drop_by_hand(url, f"tenant_{number}")
            databases.drop(WAREHOUSE)
            databases.drop(STORAGE)
    print(f"| figure ({options.tenants:,} tenants, {options.tables} tables and {options.runs} runs each) | result | limit |\n| --- | --- | --- |")
    print(f"| one of {options.tenants:,} offboarded, certificate and proof included | {seconds:.1f} s | {LIMIT:.0f} s |")
    print(f"| its schemas and roles dropped by hand, nothing else | {peer:.1f} s | |")
    sys.exit(seconds > LIMIT)


if __name__ == "__main__":
    main()
