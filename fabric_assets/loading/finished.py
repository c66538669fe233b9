"""The ledger's rows of the runs that a run continues -> the outcomes of streams that need not be loaded again.

Those are the streams that earlier runs have loaded. If the run itself is repeated, they are also the streams that it cannot load:
another try would fail in the same way.
"""

import contextlib
from collections.abc import Sequence

from fabric_assets import naming
from fabric_assets.drivers.asking import build_ask
from fabric_assets.drivers.destinations import Destination
from fabric_assets.errors import PermanentError
from fabric_assets.rows.reports import LoadRequest, StreamFailure, StreamReport, read_table
from fabric_assets.warehouse.platform_tables import ledger


def find_finished(request: LoadRequest, streams: Sequence[str], destination: Destination) -> list[StreamReport | StreamFailure]:
    """Find the outcomes that these streams already have: first the reports, then the failures."""
    if not request.earlier_runs:
        return []
    tenant = request.tenant
    dataset, database = naming.raw_dataset(tenant.tenant, request.source), destination.database
    with contextlib.closing(destination.connect()) as connection:
        ask = build_ask(connection)
        found = ledger.read_successes(ask, tenant=tenant.tenant, source=request.source, run_ids=request.earlier_runs)
        given_up = (
            ledger.read_given_up(ask, tenant=tenant.tenant, source=request.source, run_id=request.run_id) if request.run_id in request.earlier_runs else {}
        )
        reports = [
            StreamReport(
                record=found[stream],
                table_name=f"{database}.{dataset}.{stream}",
                columns=read_table(ask, dataset, stream)[1],
                destination=tenant.destination.type,
                dataset=dataset,
                first_run=False,
            )
            for stream in streams
            if stream in found
        ]
        failures = [StreamFailure(stream, PermanentError(given_up[stream])) for stream in streams if stream in given_up and stream not in found]
        return [*reports, *failures]
