select order_id, case when amount > 100 then 'large' else 'small' end as order_size from {{ ref('stg_orders') }}
