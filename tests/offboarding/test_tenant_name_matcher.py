"""What names a tenant, and what only looks so."""

from pathlib import Path

import pytest

from fabric_assets.offboarding import tenant_name_matcher as module
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher

ACME = TenantNameMatcher("acme", others=("acme_two", "acm", "acme_raw_b", "shop"), schemas=("metrics",))


@pytest.mark.parametrize(
    "text",
    [
        "acme__shop__load", "acme__warehouse", "stg_acme_raw_shop", "acme_raw_shop.orders", "acme_fabric", "acme_marts", "acme_metrics.x", "fabric_acme",
        "fabric_acme_ro", "acme/raw/shop/orders", "acme/marts/sales", '["acme", "raw", "shop"]', '[\\"acme\\", \\"raw\\"]', '"tenant": "acme"',
        '{"key": "tenant", "value": "acme"}', '"group_name": "acme"', "/data/warehouse/acme.duckdb", "inbox/acme/ads", "locks/acme.lock", "secrets/.acme.lock",
        "tenant acme, source shop", "tenants/acme.yaml", ".dagster/pool/acme__warehouse",
    ],
)  # fmt: skip
def test_what_is_made_of_its_name_names_it(text: str) -> None:
    for content in (text, f"x {text} y", f"({text})"):
        assert ACME.found_in(content)
        assert list(ACME.find(content.encode()))
        assert not ACME.found_in(ACME.replace(content, "offboarded_1"))


@pytest.mark.parametrize(
    "text",
    [
        "acme_two__shop__load", "acme_two_raw_shop", "stg_acme_two_raw_shop", "acme_two/raw/shop", '["acme_two", "raw"]', '"tenant": "acme_two"',
        "acme_two.duckdb", "fabric_acme_two", "fabric_acme_two_ro", "inbox/acme_two/ads", "tenant acme_two", "acm__shop", "myacme__shop", "x_acme_raw_shop",
        "acme_raw_b__shop__load", "acme_raw_b_raw_shop", "acme_raw_b_marts", "acme.example", "data@acme.example", "the word acme alone", "b/raw/acme/orders",
        '["b", "raw", "acme", "orders"]', "acme_marts_old",
    ],
)  # fmt: skip
def test_another_tenants_name_and_a_mere_word_do_not(text: str) -> None:
    assert not ACME.found_in(text)
    assert not list(ACME.find(text.encode()))
    assert ACME.replace(text, "offboarded_1") == text


def test_a_tenant_called_like_a_source_is_not_found_in_other_tenants_keys() -> None:
    shop = TenantNameMatcher("shop", others=("acme",))
    assert not shop.found_in('["acme", "raw", "shop", "orders"] acme/raw/shop/orders acme_raw_shop acme__shop__load "source": "shop" staging.shop')
    assert shop.found_in("shop/raw/crm/orders")


def test_the_packages_own_name_is_not_a_match_for_a_tenant_called_assets() -> None:
    assets = TenantNameMatcher("assets")
    assert not assets.found_in("fabric_assets.definitions")
    assert assets.found_in("assets__crm__load")


def test_two_columns_of_a_row_that_lie_beside_each_other_in_a_file_are_found() -> None:
    assert list(ACME.find(b"4f2a-tenantacme\x00\x01"))
    assert not list(ACME.find(b"4f2a-tenantacme_two\x00"))


@pytest.mark.parametrize("shift", range(-30, 31, 3))
def test_a_name_on_the_border_of_two_chunks_is_found_and_no_other_is_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1024)
    file = tmp_path / "events.db"
    file.write_bytes(b"." * (1024 + shift) + b"acme_raw_shop" + b"." * (2048 - 1037 - shift))
    assert file.stat().st_size == 2048
    assert ACME.find_in_file(file) is not None
    file.write_bytes(b"." * (1024 + shift) + b"acme_raw_b_raw_shop" + b"." * 500)
    assert ACME.find_in_file(file) is None
