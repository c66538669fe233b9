-- The marts by day, channel and campaign have the same totals of spend, clicks and conversions.
{{ config(meta={'dagster': {'ref': {'name': 'ad_spend_by_campaign'}}}) }}

with

    totals as (

        select sum(spend) as spend, sum(clicks) as clicks, sum(conversions) as conversions
        from {{ ref('ad_spend_by_day') }}
        union all
        select sum(spend) as spend, sum(clicks) as clicks, sum(conversions) as conversions
        from {{ ref('ad_spend_by_channel') }}
        union all
        select sum(spend) as spend, sum(clicks) as clicks, sum(conversions) as conversions
        from {{ ref('ad_spend_by_campaign') }}

    ),

    final as (

        select count(*) as totals from (select distinct spend, clicks, conversions from totals) as distinct_totals

    )

select *
from final
where totals > 1
