with

    source as (select id, name from {{ source('shop', 'customers') }}),

    renamed as (

        select
            -- ids
            cast(id as varchar) as customer_id,

            -- strings
            cast(name as varchar) as customer_name

        from source

    )

select *
from renamed
