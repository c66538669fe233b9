with

    source as (

        select id, customer, ordered_at, store_id, subtotal, tax_paid, order_total from {{ source('shop', 'orders') }}

    ),

    renamed as (

        select
            -- ids
            cast(id as varchar) as order_id,
            cast(customer as varchar) as customer_id,
            cast(store_id as varchar) as store_id,

            -- numerics
            {{ cents_to_amount('subtotal') }} as subtotal,
            {{ cents_to_amount('tax_paid') }} as tax,
            {{ cents_to_amount('order_total') }} as total,

            -- timestamps
            cast(ordered_at as timestamp) as ordered_at

        from source

    )

select *
from renamed
