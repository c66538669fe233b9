with months as ({{ dbt.date_spine("month", "cast('2024-01-01' as date)", "cast('2024-04-01' as date)") }})

select cast(date_month as date) as date_month
from months
