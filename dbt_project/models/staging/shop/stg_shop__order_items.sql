with

    source as (select id, order_id, sku from {{ source('shop', 'items') }}),

    renamed as (

        select
            -- ids
            cast(id as varchar) as order_item_id,
            cast(order_id as varchar) as order_id,
            cast(sku as varchar) as product_id

        from source

    )

select *
from renamed
