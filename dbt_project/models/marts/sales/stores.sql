with

    stores as (select store_id, store_name, tax_rate, opened_at from {{ ref('stg_shop__stores') }}),

    final as (select store_id, store_name, tax_rate, cast(opened_at as date) as opened_on from stores)

select *
from final
