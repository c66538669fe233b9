with
    sums as (

        select
            customer_id,
            count(distinct order_id) as count_lifetime_orders,
            min(ordered_at) as first_ordered_at,
            sum(order_total) as lifetime_spend
        from {{ ref('orders') }}
        group by 1

    )

select
    customers.*,
    sums.count_lifetime_orders,
    sums.first_ordered_at,
    sums.lifetime_spend,
    case when sums.count_lifetime_orders > 1 then 'returning' else 'new' end as customer_type
from {{ ref('stg_customers') }} as customers
left join sums on customers.customer_id = sums.customer_id
