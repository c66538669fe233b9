"""A dbt project with seeds and snapshots in two versions, for test_seeds.py and test_snapshots.py: parsed once for all of pytest's workers.

A parse takes longer than the builds of a test. So what the tests change lies together in the second version, and each of them reads its own part of it.
"""

from typing import Any

from tests.transform.killing import ENDLESS_HOOK

KINDS = """id,words,share,on_day,is_open,nothing
1,"it's, 100 % ""quoted"" \\ {{ x }} ;",0.10,2024-02-29,true,
2,"two
lines and  spaces ",-1234567.125,2023-12-31,false,
3,,,,,
4,Ünïcode 城市,2,2024-01-01,true,
"""
LARGE_ROWS = 38_000
_REGIONS_YML = f"""
seeds:
  - name: regions
    description: One row per region.
    config: {{post_hook: "{ENDLESS_HOOK}"}}
    columns:
      - {{name: region, description: Two letters., data_tests: [unique, not_null]}}
"""
_NAMES_YML = """
snapshots:
  - name: customer_names
    relation: ref('stg_customers')
    description: One row per customer and name.
    config: {unique_key: customer_id, strategy: check, check_cols: [customer_name]}
    columns: [{name: dbt_scd_id, data_tests: [unique]}]
  - {name: by_key, relation: ref('stg_customers'), config: {unique_key: customer_id, strategy: check, check_cols: [customer_name]}}
  - {name: by_strategy, relation: ref('stg_customers'), config: {unique_key: customer_id, strategy: check, check_cols: [customer_name]}}
  - {name: by_columns, relation: ref('stg_customers'), config: {unique_key: customer_id, strategy: check, check_cols: [customer_name]}}
  - name: in_order
    relation: ref('stg_customers')
    config: {unique_key: [customer_id, customer_name], strategy: check, check_cols: [customer_name, customer_id]}
  - {name: old_names, relation: ref('stg_customers'), config: {unique_key: customer_id, strategy: check, check_cols: [customer_name]}}
"""
_AMOUNTS_SQL = f"""
{{% snapshot order_amounts %}}
{{{{ config(target_schema='elsewhere', unique_key='order_id', strategy='timestamp', updated_at='ordered_at', post_hook="{ENDLESS_HOOK}") }}}}
select * from {{{{ ref('stg_orders') }}}}
{{% endsnapshot %}}
"""
# The files of the first version, shared ones and tenants' own, beside those of the fixture project.
SEEDED = {
    "seeds/regions.csv": 'region,label,population\nEU,Europe,449\nUS,"United States, all",335\nXX,,\n',
    "seeds/regions.yml": _REGIONS_YML,
    "seeds/currencies.csv": "region,label\nEU,Euro\n",
    "seeds/kinds.csv": KINDS,
    "seeds/lists/weekdays.csv": "number;name\n1;Monday\n2;Tuesday\n",
    "seeds/lists/lists.yml": """
seeds:
  - {name: weekdays, config: {schema: lists, delimiter: ";", column_types: {number: varchar(2)}, tags: [calendar]}}
""",
    "seeds/tenants/acme/acme__codes.csv": "code,meaning\n007,secret\n1,open\n",
    "seeds/tenants/acme/lists/acme__late.csv": "a\n1\n",
    "seeds/tenants/acme/codes.yml": """
seeds:
  - name: acme__codes
    config: {column_types: {code: varchar}}
    columns: [{name: code, data_tests: [unique]}]
""",
    "seeds/tenants/globex/globex__codes.csv": "code\nx\n",
    "seeds/tenants/globex/globex__large.csv": "\n".join(["id,name,value", *(f"{number},name {number},{number}.5" for number in range(LARGE_ROWS))]),
    "seeds/tenants/torn/torn__codes.csv": "code,meaning\n1,2,3\n",
    "snapshots/names.yml": _NAMES_YML,
    "snapshots/amounts.sql": _AMOUNTS_SQL,
    "snapshots/tenants/acme/acme__vips.sql": """
{% snapshot acme__vips %}
{{ config(unique_key='customer_id', strategy='check', check_cols='all') }}
select customer_id from {{ ref('acme__vip_customers') }}
{% endsnapshot %}
""",
    "models/marts/history/names_per_customer.sql": "select customer_id, count(*) as names from {{ ref('customer_names') }} group by customer_id",
    "models/marts/history/names_per_key.sql": "select customer_id, count(*) as names from {{ ref('by_key') }} group by customer_id",
    "models/marts/history/large_regions.sql": "select region from {{ ref('regions') }} where population > 400",
    "models/marts/history/currency_labels.sql": "select label from {{ ref('currencies') }}",
}
_FIRST = "relation: ref('stg_customers'), config: {unique_key: customer_id, strategy: check, check_cols: [customer_name]}"
_NAMES = {
    f"by_key, {_FIRST}": f"by_key, {_FIRST}".replace("customer_id", "customer_name"),
    f"by_strategy, {_FIRST}": f"by_strategy, {_FIRST}".replace("check, check_cols: [customer_name]", "timestamp, updated_at: customer_id"),
    f"by_columns, {_FIRST}": f"by_columns, {_FIRST}".replace("[customer_name]", "all"),
    "{unique_key: [customer_id, customer_name], strategy: check, check_cols: [customer_name, customer_id]}": (
        "{unique_key: [customer_name, customer_id], strategy: check, check_cols: [customer_id, customer_name]}"
    ),
    "name: old_names": "name: new_names",
}


def _change(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


# What the second version has instead.
CHANGED = {
    "seeds/regions.csv": "region,label,population\nAP,Asia,4700\n",
    "seeds/currencies.csv": "region,currency,label\nAP,JPY,Yen\n",
    "snapshots/names.yml": _change(_NAMES_YML, _NAMES),
    "snapshots/amounts.sql": _change(_AMOUNTS_SQL, {"updated_at='ordered_at'": "updated_at='cast(ordered_at as date)'"}),
}
# What the tests' tenants select.
HISTORIES: dict[str, Any] = {"select": ["+marts.history", "+path:snapshots"], "exclude": ["path:seeds", "large_regions", "currency_labels", "tenants"]}
AMOUNTS: dict[str, Any] = {"select": ["+order_amounts"], "exclude": ["tenants"]}
REGIONS: dict[str, Any] = {"select": ["+large_regions", "+currency_labels"]}
TORN: dict[str, Any] = {"select": ["weekdays"], "exclude": ["path:snapshots"]}
LISTS: dict[str, Any] = {"select": ["+large_regions", "weekdays", "kinds"], "exclude": ["models/tenants", "path:snapshots"]}
