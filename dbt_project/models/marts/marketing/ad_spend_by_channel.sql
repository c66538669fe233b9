with

    ad_spend as (select spend_date, channel, campaign, spend, clicks, conversions from {{ ref('int_ad_spend') }}),

    totals as (

        select
            channel,
            min(spend_date) as first_day,
            max(spend_date) as last_day,
            cast(count(distinct spend_date) as integer) as days,
            cast(count(distinct campaign) as integer) as campaigns,
            cast(sum(spend) as numeric(20, 6)) as spend,
            cast(sum(clicks) as bigint) as clicks,
            cast(sum(conversions) as bigint) as conversions

        from ad_spend

        group by channel

    ),

    final as (

        select
            channel,
            first_day,
            last_day,
            days,
            campaigns,
            spend,
            clicks,
            conversions,
            {{ ratio('spend', 'clicks') }} as cpc,
            {{ ratio('spend', 'conversions') }} as cpa,
            {{ ratio('conversions', 'clicks') }} as conversion_rate,
            cast('{{ var("currency", "USD") }}' as varchar) as currency

        from totals

    )

select *
from final
