with

    versions as (

        select
            ad_spend_row_id,
            file_name,
            file_line,
            channel,
            campaign,
            spend,
            clicks,
            conversions,
            spend_date,
            is_newest_version

        from {{ ref('int_ad_spend_versions') }}

    ),

    final as (

        select ad_spend_row_id, file_name, file_line, channel, campaign, spend, clicks, conversions, spend_date

        from versions

        where is_newest_version

    )

select *
from final
