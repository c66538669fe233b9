select email, 'contact' as kind
from {{ ref('stg_contacts') }}
union all
select customer_name, 'customer'
from {{ ref('int_known_customers') }}
