with
    sums as (

        select
            order_id,
            sum(supply_cost) as order_cost,
            sum(product_price) as order_items_subtotal,
            sum(case when is_food_item then 1 else 0 end) > 0 as is_food_order,
            sum(case when is_drink_item then 1 else 0 end) > 0 as is_drink_order
        from {{ ref('order_items') }}
        group by 1

    )

select
    orders.*,
    sums.order_cost,
    sums.order_items_subtotal,
    sums.is_food_order,
    sums.is_drink_order,
    row_number() over (partition by orders.customer_id order by orders.ordered_at) as customer_order_number
from {{ ref('stg_orders') }} as orders
left join sums on orders.order_id = sums.order_id
