"""Time one code location in this process: import, build, repository and jobs, snapshot, peak memory; prints JSON.

    python code_location.py MODULE [TENANTS]

MODULE offers `defs`, which returns Dagster definitions. The clock starts before anything but the standard library is imported.
"""

import importlib
import json
import resource
import sys
import time

started = time.perf_counter()
module = importlib.import_module(sys.argv[1])
import dagster as dg  # noqa: E402
from dagster_shared.serdes import serialize_value  # noqa: E402

imported = time.perf_counter()
definitions: dg.Definitions = module.defs()
built = time.perf_counter()
repository = definitions.get_repository_def()
jobs = repository.get_all_jobs()
loaded = time.perf_counter()
from dagster._core.remote_representation.external_data import RepositorySnap  # noqa: E402

size = len(serialize_value(RepositorySnap.from_def(repository)))
done = time.perf_counter()
print(
    json.dumps(
        {
            "import": imported - started,
            "build": built - imported,
            "repository": loaded - built,
            "snapshot": done - loaded,
            "total": done - started,
            "cpu": time.process_time(),
            "snapshot_mb": size / 1e6,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "assets": len(list(repository.asset_graph.materializable_asset_keys)),
            "checks": len(repository.asset_graph.asset_check_keys),
            "jobs": sum(not job.name.startswith("__") for job in jobs),
            "schedules": len(repository.schedule_defs),
        }
    )
)
