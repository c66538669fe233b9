with

    ad_spend as (select spend_date, channel, campaign, spend, clicks, conversions from {{ ref('int_ad_spend') }}),

    totals as (

        select
            channel,
            campaign,
            min(spend_date) as first_day,
            max(spend_date) as last_day,
            cast(count(distinct spend_date) as integer) as days,
            cast(sum(spend) as numeric(20, 6)) as spend,
            cast(sum(clicks) as bigint) as clicks,
            cast(sum(conversions) as bigint) as conversions

        from ad_spend

        group by channel, campaign

    ),

    final as (

        select
            {{ row_key(['channel', 'campaign']) }} as campaign_id,
            channel,
            campaign,
            first_day,
            last_day,
            days,
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
