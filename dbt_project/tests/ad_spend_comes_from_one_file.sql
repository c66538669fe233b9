-- A correction under a new name would count in addition to the original. Only a warning, since two files may share a
-- campaign.
{{ config(severity='warn') }}

select spend_date, channel, campaign, count(distinct file_name) as files

from {{ ref('int_ad_spend') }}

group by spend_date, channel, campaign

having count(distinct file_name) > 1
