with source as (select * from {{ source('ecom', 'raw_products') }})

select
    sku as product_id,
    name as product_name,
    {{ cents_to_dollars('price') }} as product_price,
    coalesce(type = 'toast', false) as is_food_item,
    coalesce(type = 'beverage', false) as is_drink_item
from source
