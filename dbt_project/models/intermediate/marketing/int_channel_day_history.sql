{%- set window_days = 28 %}

with

    ad_spend as (select spend_date, channel, spend from {{ ref('int_ad_spend') }}),

    channel_days as (

        select channel, spend_date, cast(sum(spend) as numeric(20, 6)) as spend

        from ad_spend

        group by channel, spend_date

    ),

    -- For each day of a channel, the days before it. The day itself is left out, so that an outlier does not widen
    -- its own limits.
    history as (

        select channel_days.channel, channel_days.spend_date, past.spend

        from channel_days

        inner join
            channel_days as past
            on channel_days.channel = past.channel
            and past.spend_date between channel_days.spend_date - {{ window_days }} and channel_days.spend_date - 1

    ),

    ranked_spend as (

        select
            channel,
            spend_date,
            spend,
            row_number() over (partition by channel, spend_date order by spend) as size_rank,
            count(*) over (partition by channel, spend_date) as history_days

        from history

    ),

    medians as (

        select
            channel,
            spend_date,
            spend,
            history_days,
            cast(
                sum(spend * {{ median_weight('size_rank', 'history_days') }}) over (
                    partition by channel, spend_date
                ) as numeric(21, 7)
            ) as median_spend

        from ranked_spend

    ),

    ranked_deviations as (

        select
            channel,
            spend_date,
            history_days,
            median_spend,
            abs(spend - median_spend) as deviation,
            row_number() over (partition by channel, spend_date order by abs(spend - median_spend)) as size_rank

        from medians

    ),

    spreads as (

        select
            channel,
            spend_date,
            history_days,
            median_spend,
            cast(
                sum(deviation * {{ median_weight('size_rank', 'history_days') }}) as numeric(22, 8)
            ) as median_deviation,
            cast(sum(deviation) as numeric(22, 7)) as total_deviation

        from ranked_deviations

        group by channel, spend_date, history_days, median_spend

    ),

    final as (

        select
            channel_days.channel || '-' || cast(channel_days.spend_date as varchar) as channel_day_id,
            channel_days.channel,
            channel_days.spend_date,
            channel_days.spend,
            cast(coalesce(spreads.history_days, 0) as integer) as history_days,
            spreads.median_spend,
            spreads.median_deviation,
            spreads.total_deviation

        from channel_days

        left join spreads on channel_days.channel = spreads.channel and channel_days.spend_date = spreads.spend_date

    )

select *
from final
