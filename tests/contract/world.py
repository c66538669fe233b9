"""A tenant with one source and one destination, loads of it, and what they left: what the contract is checked on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.loading.load import load_streams
from fabric_assets.rows.reports import LoadRequest, StreamFailure, StreamReport
from fabric_assets.settings import Settings
from tests.contract.source import Destination, Source
from tests.faults.oracle import Counts, count_rows
from tests.faults.processes import Case


@dataclass
class World:
    """Tenant acme with the source `shop`.

    Args:
        messages: what the loads reported.
    """

    settings: Settings
    source: Source
    destination: Destination
    messages: list[str] = field(default_factory=list)

    @property
    def yaml(self) -> dict[str, Any]:
        return {"version": 1, "tenant": "acme", "destination": self.destination.build(), "sources": {"shop": self.source.build_block()}}

    def fill(self) -> None:
        """A first day: rows in both streams."""
        self.source.put("orders", range(100, 145), "first")
        self.source.put("stores", range(10), "first")

    def change(self) -> None:
        """A later day: an order changes, and there are five new ones and a new store."""
        self.source.put("orders", [120, *range(145, 150)], "later")
        self.source.put("stores", [10], "later")

    def load(self, *, full_refresh: bool = False) -> dict[str, StreamReport]:
        """Load in this process, whole; any failure is raised."""
        outcomes = self.try_load(full_refresh=full_refresh)
        for outcome in outcomes.values():
            if isinstance(outcome, StreamFailure):
                raise outcome.error
        return outcomes  # type: ignore[return-value]

    def try_load(self, *, full_refresh: bool = False) -> dict[str, StreamReport | StreamFailure]:
        request = LoadRequest(TenantConfig.model_validate(self.yaml), "shop", (), self.settings, full_refresh)
        return {outcome.stream: outcome for outcome in load_streams(request, report=self.messages.append)}

    def build_case(self, **faults: Any) -> Case:
        """A load in a process of its own."""
        names = ("tenants_dir", "dbt_project_dir", "data_dir", "connectors", *(("connectors_dir",) if self.settings.connectors_dir else ()))
        paths = {name: str(getattr(self.settings, name)) for name in names}
        return Case(settings=paths, loads=({"tenant": self.yaml, "source": "shop", "streams": ()},), **faults)

    # --- what the destination holds

    def read(self, stream: str) -> list[tuple[Any, ...]]:
        """The stream's rows; none where nothing was ever loaded."""
        tables = self.destination.ask("select table_name from information_schema.tables where table_schema = 'acme_raw_shop'")
        return self.destination.ask(f"select id, owner, note, seq from acme_raw_shop.{stream}") if (stream,) in tables else []

    def check_rejects(self) -> None:
        """The one bad row is kept, whole, with its reason."""
        rejects = self.destination.ask("select stream, column_name, reason, raw, raw_truncated, message from acme_fabric.rejected_rows")
        assert len(rejects) == 1, rejects
        column, reason = self.source.reason[1], self.source.reason[0]
        assert rejects[0][:3] == ("orders", column, reason)
        assert "acme" in rejects[0][3] and not rejects[0][4]
        assert rejects[0][5]

    def read_states(self) -> list[tuple[Any, ...]]:
        """What the next load goes on from: the streams' states, and the dropped files that are dealt with."""
        return [
            *self.destination.ask("select stream, state, version from acme_fabric.stream_state order by stream"),
            *self.destination.ask("select stream, name, sha256, status from acme_fabric.imported_files order by 1, 2, 3, 4"),
        ]

    def count(self, stream: str, expected: list[tuple[Any, ...]] | None = None) -> Counts:
        """Args:
        expected: default what the source holds now.
        """
        return count_rows(list(self.source.rows[stream].values()) if expected is None else expected, self.read(stream), owner="acme")


BuildWorld = Callable[[], World]
