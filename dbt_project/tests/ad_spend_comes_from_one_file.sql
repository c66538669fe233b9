-- A correction that comes under a new name counts beside what it corrects: a warning, since two files may well share a campaign.
{{ config(severity='warn') }}

select spend_date, channel, campaign, count(distinct file_name) as files

from {{ ref('stg_ad_spend') }}

group by spend_date, channel, campaign

having count(distinct file_name) > 1
