with
    source as (select * from {{ source('shop', 'orders') }}),

    renamed as (select id as order_id, customer_id, cast(amount as decimal(18, 2)) as amount, ordered_at from source)

select *
from renamed
