select * from {{ ref('orders') }} where order_total < 0
