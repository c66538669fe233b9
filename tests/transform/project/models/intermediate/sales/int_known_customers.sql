{{ config(materialized='ephemeral') }}
select customer_id, customer_name
from {{ ref('stg_customers') }}
where customer_name is not null
