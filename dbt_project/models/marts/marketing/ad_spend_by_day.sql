with

    ad_spend as (select spend_date, spend, clicks, conversions from {{ ref('int_ad_spend') }}),

    totals as (

        select
            spend_date,
            cast(sum(spend) as numeric(20, 6)) as spend,
            cast(sum(clicks) as bigint) as clicks,
            cast(sum(conversions) as bigint) as conversions

        from ad_spend

        group by spend_date

    ),

    final as (

        select
            spend_date,
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
