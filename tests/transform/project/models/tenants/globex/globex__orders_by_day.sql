{{ config(schema='reports') }}
select cast(ordered_at as date) as ordered_on, count(*) as order_count
from {{ ref('orders') }}
group by 1
