with
    final as (
        select
            stg_orders.order_id,
            stg_orders.ordered_at,
            stg_customers.customer_name,
            stg_orders.amount,
            case when stg_orders.amount >= {{ var('large_from', 100) }} then 'large' else 'small' end as order_size
        from {{ ref('stg_orders') }} as stg_orders
        left join {{ ref('stg_customers') }} as stg_customers on stg_orders.customer_id = stg_customers.customer_id
    )

select *
from final
