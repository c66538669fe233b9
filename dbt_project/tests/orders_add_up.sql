-- The amounts of an order agree with each other and with its items; this also finds an order whose items are missing.
select order_id, subtotal, tax, total, food_revenue, drink_revenue

from {{ ref('orders') }}

where subtotal + tax <> total or food_revenue + drink_revenue <> subtotal or food_items + drink_items <> items
