with

    campaigns as (

        select
            file_name,
            file_sha256,
            file_line,
            channel,
            campaign,
            spend,
            clicks,
            conversions,
            spend_date,
            -- The first import counts: rows that were corrected and replayed later do not make an old version newer.
            min(imported_at) over (partition by file_name, file_sha256) as imported_at

        from {{ ref('stg_ads__campaigns') }}

    ),

    numbered as (

        select
            *,
            -- Also by the hash, so that two versions imported at the same moment stay two.
            dense_rank() over (partition by file_name order by imported_at, file_sha256) as version_number,
            dense_rank() over (partition by file_name order by imported_at desc, file_sha256 desc) as version_age

        from campaigns

    ),

    final as (

        select
            -- ids
            file_sha256 || '-' || cast(file_line as varchar) as ad_spend_row_id,
            file_name,
            file_sha256,
            file_line,

            -- strings
            channel,
            campaign,

            -- numerics
            spend,
            coalesce(clicks, 0) as clicks,
            coalesce(conversions, 0) as conversions,
            cast(version_number as integer) as version_number,

            -- booleans
            version_age = 1 as is_newest_version,

            -- dates
            spend_date,

            -- timestamps
            imported_at

        from numbered

    )

select *
from final
