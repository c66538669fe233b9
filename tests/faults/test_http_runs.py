"""How often a run asks an API that fails: the step retries a temporary error, and asks only once after a permanent one."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import yaml
from pytest_httpserver import HTTPServer

from fabric_assets.config.loader import load_fleet
from fabric_assets.errors import FabricError
from fabric_assets.factories import failures
from fabric_assets.factories.tenant import build_tenant_definitions
from fabric_assets.settings import Settings
from fabric_assets.warehouse.platform_tables import ledger
from tests.connectors.rest_api.rest import Api, answer_json, skip_pauses


@pytest.fixture
def api() -> Iterator[Api]:
    with HTTPServer(host="127.0.0.1") as server:
        yield Api(server)


def run(api: Api, settings: Settings, **source: Any) -> dg.ExecuteInProcessResult:
    declared = {
        "type": "rest_api",
        "base_url": api.url,
        "allow_private_network": True,
        "retries": {"max": 2, "delay": "0s"},
        "streams": {"contacts": {"path": "contacts", "primary_key": "id"}},
        **source,
    }
    (settings.tenants_dir / "acme.yaml").write_text(yaml.safe_dump({"version": 1, "tenant": "acme", "sources": {"crm": declared}}))
    assets = build_tenant_definitions(load_fleet(settings).tenants["acme"], None, settings=settings).assets or []
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(list(assets), instance=instance, raise_on_error=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_failure_that_will_not_pass_is_asked_once_in_all(api: Api, settings: Settings, status: int) -> None:
    api.serve("/v1/contacts", answer_json({}, status))
    assert not run(api, settings).success
    assert len(api.requests) == 1


def test_a_storm_is_met_five_times_by_each_of_the_steps_tries(api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_pauses(monkeypatch)
    api.serve("/v1/contacts", answer_json({}, 503))
    assert not run(api, settings).success
    assert len(api.requests) == 15


def test_a_step_tries_again_when_a_long_wait_is_over(api: Api, settings: Settings) -> None:
    answers = [answer_json({}, 429, {"Retry-After": "1000000000"})]
    api.serve("/v1/contacts", lambda _: answers.pop() if answers else [{"id": 1}])
    assert run(api, settings).success
    assert len(api.requests) == 2


def test_with_every_failure_tried_again_the_count_of_requests_goes_red(api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "RetriableError", FabricError)
    monkeypatch.setattr(ledger, "read_given_up", lambda *_, **__: {})
    with pytest.raises(AssertionError, match="3 == 1"):
        test_a_failure_that_will_not_pass_is_asked_once_in_all(api, settings, 404)
