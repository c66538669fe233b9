{{ config(materialized='view') }}
select cast(name as integer) as number
from {{ source('shop', 'customers') }}
where cast(name as integer) > 0
