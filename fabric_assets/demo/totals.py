"""A demo tenant's warehouse -> the few numbers that show whether a run was incremental, and whether the tenants agree."""

from dataclasses import dataclass
from decimal import Decimal

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.destinations import open_ask
from fabric_assets.errors import DestinationError
from fabric_assets.quoting import quote, quote_table
from fabric_assets.settings import Settings


@dataclass(frozen=True)
class AdTotals:
    """The totals of the ad spend's marts, in the tenant's currency."""

    days: int
    spend: Decimal
    clicks: int
    conversions: int
    anomalies: int


@dataclass(frozen=True)
class ShopTotals:
    """The totals of a shop's marts, in the tenant's currency."""

    orders: int
    revenue: Decimal
    tax: Decimal
    supply_cost: Decimal
    customers: int
    lifetime_value: Decimal


def count_raw_rows(tenant: TenantConfig, settings: Settings) -> dict[str, int] | None:
    """Count the rows of each raw table, keyed source.stream; None if nothing was loaded yet."""
    tables = {naming.raw_dataset(tenant.tenant, source): (source, config.streams) for source, config in tenant.sources.items()}
    try:
        with open_ask(tenant, settings) as ask:
            found = ask("select table_schema, table_name from information_schema.tables")
            raw = [(schema, table) for schema, table in found if schema in tables and table in tables[schema][1]]
            return {f"{tables[schema][0]}.{table}": ask(f"select count(*) from {quote_table(schema, table)}")[0][0] for schema, table in raw} or None
    except DestinationError:
        return None


def read_ad_totals(tenant: TenantConfig, settings: Settings) -> AdTotals:
    """Add up the marts of a tenant's ad spend."""
    marts = quote(naming.dbt_schema(tenant.tenant, "marts"))
    with open_ask(tenant, settings) as ask:
        ((days, spend, clicks, conversions),) = ask(f"select count(*), sum(spend), sum(clicks), sum(conversions) from {marts}.ad_spend_by_day")
        ((anomalies,),) = ask(f"select count(*) from {marts}.ad_spend_anomalies where is_anomaly")
    return AdTotals(days, spend, int(clicks), int(conversions), anomalies)


def read_totals(tenant: TenantConfig, settings: Settings) -> ShopTotals:
    """Add up a shop's marts."""
    marts = quote(naming.dbt_schema(tenant.tenant, "marts"))
    with open_ask(tenant, settings) as ask:
        ((orders, revenue, tax, supply_cost),) = ask(f"select sum(orders), sum(revenue), sum(tax), sum(supply_cost) from {marts}.daily_revenue")
        ((customers, lifetime_value),) = ask(f"select count(*), sum(lifetime_value) from {marts}.customers")
    return ShopTotals(int(orders), revenue, tax, supply_cost, customers, lifetime_value)
