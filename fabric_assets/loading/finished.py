"""The ledger's rows of the runs that a run goes on with -> reports of the streams that need not be loaded again."""

import contextlib
from collections.abc import Sequence

from fabric_assets import naming
from fabric_assets.connectors.destinations import connect, get_database_name
from fabric_assets.loading import ledger
from fabric_assets.loading.reports import LoadRequest, StreamReport, read_table


def find_finished(request: LoadRequest, streams: Sequence[str]) -> list[StreamReport]:
    """Find what the request's earlier runs have loaded of these streams, in the streams' order."""
    if not request.earlier_runs:
        return []
    tenant = request.tenant
    dataset, database = naming.raw_dataset(tenant.tenant, request.source), get_database_name(tenant, request.settings)
    with contextlib.closing(connect(tenant, request.settings)) as connection:
        found = ledger.read_successes(connection, tenant=tenant.tenant, source=request.source, run_ids=request.earlier_runs)
        return [
            StreamReport(
                record=found[stream],
                table_name=f"{database}.{dataset}.{stream}",
                columns=read_table(connection, dataset, stream)[1],
                destination=tenant.destination.type,
                dataset=dataset,
                first_run=False,
            )
            for stream in streams
            if stream in found
        ]
