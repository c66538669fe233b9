{{ config(meta={'dagster': {'ref': {'name': 'customers'}}}) }}
select 1 as one
from (select sum(amount) as total from {{ ref('orders') }}) as orders
cross join (select sum(lifetime_value) as total from {{ ref('customers') }}) as customers
where orders.total <> customers.total
