select customer_id from {{ ref('customers') }} where order_count >= 2
