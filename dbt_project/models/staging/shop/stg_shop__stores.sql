with

    source as (select id, name, opened_at, tax_rate from {{ source('shop', 'stores') }}),

    renamed as (

        select
            -- ids
            cast(id as varchar) as store_id,

            -- strings
            cast(name as varchar) as store_name,

            -- numerics
            cast(tax_rate as numeric(6, 4)) as tax_rate,

            -- timestamps
            cast(opened_at as timestamp) as opened_at

        from source

    )

select *
from renamed
