with

    source as (

        select
            ad_spend_row_id,
            file_name,
            file_line,
            spend_date,
            channel,
            campaign,
            spend,
            clicks,
            conversions,
            is_newest_version
        from {{ ref('stg_ad_spend_versions') }}

    ),

    renamed as (

        select
            -- ids
            ad_spend_row_id,
            file_name,
            file_line,

            -- strings
            channel,
            campaign,

            -- numerics
            spend,
            clicks,
            conversions,

            -- dates
            spend_date

        from source

        where is_newest_version

    )

select *
from renamed
