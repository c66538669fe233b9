with

    source as (select id, name, cost, perishable, sku from {{ source('shop', 'supplies') }}),

    renamed as (

        select
            -- ids
            cast(id as varchar) as supply_id,
            cast(sku as varchar) as product_id,

            -- strings
            cast(name as varchar) as supply_name,

            -- numerics
            {{ cents_to_amount('cost') }} as cost,

            -- booleans
            -- Cast through text: a source may deliver true, 'True' or 1, and Postgres cannot cast a bigint to boolean.
            cast(cast(perishable as varchar) as boolean) as is_perishable

        from source

    )

select *
from renamed
