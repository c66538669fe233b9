with

    orders as (select store_id, ordered_on, subtotal, tax, total, supply_cost, is_first_order from {{ ref('orders') }}),

    final as (

        select
            store_id || '-' || cast(ordered_on as varchar) as daily_revenue_id,
            store_id,
            ordered_on,
            cast(count(*) as integer) as orders,
            cast(sum(case when is_first_order then 1 else 0 end) as integer) as first_orders,
            cast(sum(subtotal) as numeric(18, 2)) as revenue,
            cast(sum(tax) as numeric(18, 2)) as tax,
            cast(sum(total) as numeric(18, 2)) as total,
            cast(sum(supply_cost) as numeric(18, 2)) as supply_cost,
            cast(sum(subtotal) - sum(supply_cost) as numeric(18, 2)) as gross_profit,
            cast('{{ var("currency", "USD") }}' as varchar) as currency

        from orders

        group by store_id, ordered_on

    )

select *
from final
