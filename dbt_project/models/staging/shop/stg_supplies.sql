select supply_id || '-' || product_id as product_supply_id, * from {{ ref('stg_shop__supplies') }}
