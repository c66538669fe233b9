-- Formula, constants and their sources: docs/marketing.md.
{%- set least_history_days = 14 -%}
{%- set threshold = 3.5 %}

with

    channel_days as (

        select channel_day_id, channel, spend_date, spend, history_days, median_spend, median_deviation, total_deviation
        from {{ ref('int_channel_day_history') }}

    ),

    scored as (

        select
            *,
            {{ ratio('total_deviation', 'history_days') }} as mean_deviation,
            cast(
                case
                    when history_days >= {{ least_history_days }}
                    then
                        coalesce(
                            {{ ratio('0.6745 * (spend - median_spend)', 'median_deviation') }},
                            {{ ratio('history_days * (spend - median_spend)', '(1.253314 * total_deviation)') }}
                        )
                end as numeric(38, 6)
            ) as score

        from channel_days

    ),

    judged as (

        select
            *,
            case
                when history_days < {{ least_history_days }}
                then 'too_little_history'
                when spend = median_spend or abs(score) <= {{ threshold }}
                then 'normal'
                when spend > median_spend
                then 'high'
                else 'low'
            end as verdict

        from scored

    ),

    final as (

        select
            channel_day_id,
            channel,
            spend_date,
            spend,
            history_days,
            median_spend,
            median_deviation,
            mean_deviation,
            score,
            cast(verdict as varchar) as verdict,
            verdict in ('high', 'low') as is_anomaly,
            cast('{{ var("currency", "USD") }}' as varchar) as currency

        from judged

    )

select *
from final
