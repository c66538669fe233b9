"""An inbox that goes takes no file of another tenant along, whatever the two are called and wherever their files really are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.config.loader import load_fleet, load_tenant_names
from fabric_assets.errors import ConfigurationError
from fabric_assets.offboarding.neighbours import refuse_shared_inboxes
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher
from fabric_assets.settings import Settings
from tests.faults.processes import Case, Process
from tests.offboarding.world import get_environ, make_home

Write = Callable[..., Path]


def get_inbox(path: str) -> dict[str, Any]:
    return {"sources": {"ads": {"type": "csv_import", "path": path, "streams": {"spend": {"glob": "*.csv", "columns": {"day": {}}}}}}}


def get_folder(path: str) -> dict[str, Any]:
    return {"sources": {"logs": {"type": "files", "path": path, "format": "jsonl", "streams": {"spend": {"glob": "*.jsonl"}}}}}


def check(settings: Settings, tenant: str = "acme") -> None:
    """What `fabric offboard` asks before it lists anything."""
    config = None
    if (settings.tenants_dir / f"{tenant}.yaml").exists():
        config = load_fleet(replace(settings, tenants=(tenant,))).tenants[tenant].config
    refuse_shared_inboxes(tenant, settings.data_dir, config, load_tenant_names(settings))


@pytest.mark.parametrize("has_yaml", [True, False], ids=["yaml", "no_yaml"])
def test_another_tenants_dropped_file_within_the_leaving_ones_folder_is_not_deleted(
    settings: Settings, write_tenant: Write, start: Callable[..., Process], has_yaml: bool
) -> None:
    make_home(settings)
    if has_yaml:
        write_tenant("acme", get_inbox("inbox/acme/ads"))
    write_tenant("acme_emea", get_inbox("inbox/acme/emea"))
    file = settings.data_dir / "inbox" / "acme" / "emea" / "a.csv"
    file.parent.mkdir(parents=True)
    file.touch()
    refused = start(Case(command=("offboard", "acme", "--yes")), environ=get_environ(settings))
    assert refused.wait() == 2
    assert "inbox/acme, which is to go with acme, holds inbox/acme/emea, the inbox of tenant acme_emea's source ads" in refused.log
    assert file.exists()


@pytest.mark.parametrize("other", ["acme_emea", "acme_ro", "acm", "my_acme"])
@pytest.mark.parametrize(
    ("own", "theirs", "reason"),
    [
        ("inbox/acme/ads", "inbox/{other}/ads", None),
        ("inbox/acme/ads", "inbox/acme_/ads", None),
        ("inbox/acme/ads", "inbox/acme/{other}", "holds inbox/acme/{other}"),
        ("inbox/acme/ads", "inbox/./acme//{other}/", "holds inbox/./acme//{other}/"),
        ("inbox/acme/ads", "linked/{other}", "holds linked/{other}"),
        ("linked/acme/ads", "inbox/acme/{other}", "holds inbox/acme/{other}"),
        ("linked/ads", "inbox/acme/ads", "holds inbox/acme/ads"),
        ("s3://b/acme", "s3://b/acme_{other}", None),
        ("s3://b/acme", "s3://b/acme/{other}", "holds s3://b/acme/{other}"),
        ("s3://b", "s3://b/{other}", "holds s3://b/{other}"),
        ("s3://b/{other}/acme", "s3://b/{other}", "lies in s3://b/{other}"),
    ],
)
def test_no_inbox_goes_that_is_anothers_of_another_code_location(
    settings: Settings, write_tenant: Write, other: str, own: str, theirs: str, reason: str | None
) -> None:
    (settings.data_dir / "inbox" / "acme" / "ads").mkdir(parents=True)
    (settings.data_dir / "linked").symlink_to(settings.data_dir / "inbox" / "acme")
    (settings.data_dir / "inbox" / "acme" / "acme" / "ads").mkdir(parents=True)
    config = get_inbox(own.format(other=other))
    write_tenant("acme", config)
    loaded = load_fleet(replace(settings, tenants=("acme",))).tenants["acme"].config
    write_tenant(other, get_inbox(theirs.format(other=other)))
    if reason is None:
        refuse_shared_inboxes("acme", settings.data_dir, loaded, load_tenant_names(settings))
        return
    with pytest.raises(ConfigurationError) as refused:
        refuse_shared_inboxes("acme", settings.data_dir, loaded, load_tenant_names(settings))
    assert reason.format(other=other) in str(refused.value)
    assert f"tenant {other}'s source ads" in str(refused.value)


def test_a_folder_that_another_tenant_reads_is_not_deleted_and_a_whole_bucket_does_not_count_as_one(settings: Settings, write_tenant: Write) -> None:
    (settings.data_dir / "inbox" / "acme").mkdir(parents=True)
    write_tenant("acme", get_inbox("s3://b/acme"))
    write_tenant("globex", get_folder("s3://b"))
    check(settings)
    write_tenant("globex", get_folder("inbox/acme/globex"))
    with pytest.raises(ConfigurationError, match="holds inbox/acme/globex, what tenant globex's source logs reads"):
        check(settings)


def test_a_link_on_the_way_to_an_inbox_leads_to_no_folder_of_the_platforms(settings: Settings, write_tenant: Write) -> None:
    (settings.data_dir / "warehouse").mkdir()
    (settings.data_dir / "all").symlink_to(settings.data_dir)
    write_tenant("acme", get_inbox("all/warehouse"))
    with pytest.raises(ConfigurationError, match="the platform's own"):
        check(settings)


def test_who_cannot_read_what_is_anothers_deletes_no_inbox(settings: Settings, write_tenant: Write) -> None:
    write_tenant("globex", "sources: {ads: {path: 'inbox/acme")
    check(settings)
    (settings.data_dir / "inbox" / "acme").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"the YAML of globex cannot be read.*inbox/acme"):
        check(settings)


def test_without_the_folder_of_all_tenants_no_tenant_is_offboarded(settings: Settings, start: Callable[..., Process]) -> None:
    settings.tenants_dir.rmdir()
    (settings.data_dir / "inbox" / "acme").mkdir(parents=True)
    refused = start(Case(command=("offboard", "acme", "--yes")), environ=get_environ(settings))
    assert refused.wait() == 2
    assert "the tenants' folder" in refused.log
    assert (settings.data_dir / "inbox" / "acme").exists()


@pytest.mark.parametrize(
    ("schema", "own", "anothers"),
    [
        ("acme_fabric", True, False), ("acme_marts", True, False), ("acme_metrics", True, False), ("acme_raw_shop", True, False),
        ("stg_acme_raw_shop", True, False), ("acme_raw_b_c", True, False), ("acme_raw_raw_shop", True, True), ("acme_raw_marts", True, True),
        ("acme_raw_b_raw_c", True, True), ("acme_raw_b_fabric", True, True), ("acme_two_raw_shop", False, True), ("acm_raw_shop", False, True),
        ("acme_ro_marts", False, True), ("stg_acme_ro_raw_x", False, True), ("acme", False, False), ("acme__raw_shop", False, False),
        ("acme_raw_", False, False), ("acme_raw__x", False, False), ("acme_raw_Shop", False, False), ("acme_raw_shop ", False, False),
        ("stg_acme_marts", False, False), ("stg_stg_acme_raw_shop", False, False), ("rej_acme_raw_shop", False, False), ("my_acme_marts", False, False),
        ("app-acme_marts", False, False), ("acme_marts_old", False, False), ("acme_fabric2", False, False), ("fabric_acme", False, False),
    ],
)  # fmt: skip
def test_a_schema_is_called_like_a_tenants_as_a_whole_or_not_at_all(schema: str, own: bool, anothers: bool) -> None:
    acme = TenantNameMatcher("acme", others=("acm", "acme_two", "acme_raw", "acme_raw_b", "acme_ro"), schemas=("metrics",))
    assert (acme.is_like_own(schema), acme.is_like_anothers(schema)) == (own, anothers)
