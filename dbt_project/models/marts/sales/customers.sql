with

    customers as (select customer_id, customer_name from {{ ref('stg_shop__customers') }}),

    orders as (select customer_id, ordered_at, subtotal, tax, total from {{ ref('orders') }}),

    order_totals as (

        select
            customer_id,
            count(*) as orders,
            min(ordered_at) as first_ordered_at,
            max(ordered_at) as last_ordered_at,
            sum(subtotal) as lifetime_subtotal,
            sum(tax) as lifetime_tax,
            sum(total) as lifetime_value

        from orders

        group by customer_id

    ),

    final as (

        select
            customers.customer_id,
            customers.customer_name,
            case when order_totals.orders > 1 then 'returning' else 'new' end as customer_type,
            cast(coalesce(order_totals.orders, 0) as integer) as orders,
            order_totals.first_ordered_at,
            order_totals.last_ordered_at,
            cast(coalesce(order_totals.lifetime_subtotal, 0) as numeric(18, 2)) as lifetime_subtotal,
            cast(coalesce(order_totals.lifetime_tax, 0) as numeric(18, 2)) as lifetime_tax,
            cast(coalesce(order_totals.lifetime_value, 0) as numeric(18, 2)) as lifetime_value,
            cast('{{ var("currency", "USD") }}' as varchar) as currency

        from customers

        left join order_totals on customers.customer_id = order_totals.customer_id

    )

select *
from final
