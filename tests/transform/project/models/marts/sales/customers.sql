{{ config(tags=['people', 'daily']) }}
select
    stg_customers.customer_id,
    coalesce(sum(stg_orders.amount), 0) as lifetime_value,
    count(stg_orders.order_id) as order_count
from {{ ref('stg_customers') }} as stg_customers
left join {{ ref('stg_orders') }} as stg_orders on stg_customers.customer_id = stg_orders.customer_id
group by stg_customers.customer_id
