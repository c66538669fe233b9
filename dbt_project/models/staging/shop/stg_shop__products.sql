with

    source as (select sku, name, type, price, description from {{ source('shop', 'products') }}),

    renamed as (

        select
            -- ids
            cast(sku as varchar) as product_id,

            -- strings
            cast(name as varchar) as product_name,
            cast(type as varchar) as product_type,
            cast(description as varchar) as product_description,

            -- numerics
            {{ cents_to_amount('price') }} as price

        from source

    )

select *
from renamed
