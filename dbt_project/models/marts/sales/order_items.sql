with

    order_items as (select order_item_id, order_id, product_id from {{ ref('stg_shop__order_items') }}),

    orders as (select order_id, customer_id, store_id, ordered_at from {{ ref('stg_shop__orders') }}),

    products as (select product_id, product_name, is_food, is_drink, price, supply_cost from {{ ref('products') }}),

    final as (

        select
            order_items.order_item_id,
            order_items.order_id,
            orders.customer_id,
            orders.store_id,
            order_items.product_id,
            products.product_name,
            products.is_food,
            products.is_drink,
            products.price,
            products.supply_cost,
            orders.ordered_at

        from order_items

        left join orders on order_items.order_id = orders.order_id

        left join products on order_items.product_id = products.product_id

    )

select *
from final
