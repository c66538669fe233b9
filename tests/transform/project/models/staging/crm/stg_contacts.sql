select id as contact_id, lower(email) as email from {{ source('crm', 'contacts') }}
