"""The day of the tenant `demo_database`, as the shortest script that does the same with dlt and `dbt build`.

    python tenant_day_peer.py DATABASE FOLDER DBT_PROJECT

dlt reads with its fast documented backend, pyarrow; dbt runs with a plain profile and keeps its parse in FOLDER from run to run.
"""

import subprocess
import sys
from pathlib import Path

import dlt
from dlt.sources.sql_database import sql_database

database, folder, project = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
warehouse = folder / "demo_database.duckdb"

source = sql_database(f"sqlite:///{database}", backend="pyarrow", table_names=["customers", "stores", "products", "supplies", "orders", "items"])
for name, key in {"customers": "id", "stores": "id", "products": "sku", "supplies": ["id", "sku"], "orders": "id", "items": "id"}.items():
    source.resources[name].apply_hints(primary_key=key, write_disposition="merge")
for name in ("orders", "items"):
    source.resources[name].apply_hints(incremental=dlt.sources.incremental("ordered_at"))
pipeline = dlt.pipeline("shop", pipelines_dir=str(folder / "dlt"), destination=dlt.destinations.duckdb(str(warehouse)), dataset_name="demo_database_raw_shop")
pipeline.run(source)

(folder / "profiles.yml").write_text(f"fabric: {{target: dev, outputs: {{dev: {{type: duckdb, path: '{warehouse}', threads: 1}}}}}}\n")
command = [str(Path(sys.executable).with_name("dbt")), "build", "--quiet", "--project-dir", project, "--profiles-dir", str(folder)]
command += ["--target-path", str(folder / "target"), "--log-path", str(folder / "logs"), "--select", "staging.shop", "marts.sales"]
sys.exit(subprocess.call([*command, "--vars", "{fabric_tenant: demo_database, currency: USD}"]))
