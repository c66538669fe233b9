with

    orders as (
        select order_id, customer_id, store_id, subtotal, tax, total, ordered_at from {{ ref('stg_shop__orders') }}
    ),

    order_items as (select order_id, is_food, is_drink, price, supply_cost from {{ ref('order_items') }}),

    item_totals as (

        select
            order_id,
            count(*) as items,
            sum(case when is_food then 1 else 0 end) as food_items,
            sum(case when is_drink then 1 else 0 end) as drink_items,
            sum(case when is_food then price else 0 end) as food_revenue,
            sum(case when is_drink then price else 0 end) as drink_revenue,
            sum(supply_cost) as supply_cost

        from order_items

        group by order_id

    ),

    numbered as (

        select
            orders.order_id,
            orders.customer_id,
            orders.store_id,
            orders.ordered_at,
            cast(orders.ordered_at as date) as ordered_on,
            cast(coalesce(item_totals.items, 0) as integer) as items,
            cast(coalesce(item_totals.food_items, 0) as integer) as food_items,
            cast(coalesce(item_totals.drink_items, 0) as integer) as drink_items,
            cast(coalesce(item_totals.food_revenue, 0) as numeric(18, 2)) as food_revenue,
            cast(coalesce(item_totals.drink_revenue, 0) as numeric(18, 2)) as drink_revenue,
            orders.subtotal,
            orders.tax,
            orders.total,
            cast(coalesce(item_totals.supply_cost, 0) as numeric(18, 2)) as supply_cost,
            cast(
                row_number() over (
                    partition by orders.customer_id order by orders.ordered_at, orders.order_id
                ) as integer
            ) as customer_order_number

        from orders

        left join item_totals on orders.order_id = item_totals.order_id

    ),

    final as (

        select
            order_id,
            customer_id,
            store_id,
            ordered_at,
            ordered_on,
            items,
            food_items,
            drink_items,
            food_revenue,
            drink_revenue,
            subtotal,
            tax,
            total,
            supply_cost,
            customer_order_number,
            customer_order_number = 1 as is_first_order,
            cast('{{ var("currency", "USD") }}' as varchar) as currency

        from numbered

    )

select *
from final
