{{ config(materialized='incremental', unique_key='order_id') }}

select {{ dbt_utils.generate_surrogate_key(['order_id', 'store_id']) }} as log_id, order_id, ordered_at
from {{ ref('stg_orders') }}
{% if is_incremental() %} where ordered_at >= (select max(ordered_at) from {{ this }}) {% endif %}
