with

    source as (

        select
            date,
            campaign,
            channel,
            spend,
            clicks,
            conversions,
            _fabric_file,
            _fabric_file_sha256,
            _fabric_row,
            -- The first import counts: rows that were corrected and replayed later do not make an old version newer.
            min(_fabric_imported_at) over (partition by _fabric_file, _fabric_file_sha256) as imported_at

        from {{ source('ads', 'campaigns') }}

    ),

    numbered as (

        select
            *,
            -- Also by the hash, so that two versions imported at the same moment stay two.
            dense_rank() over (partition by _fabric_file order by imported_at, _fabric_file_sha256) as version_number,
            dense_rank() over (
                partition by _fabric_file order by imported_at desc, _fabric_file_sha256 desc
            ) as version_age

        from source

    ),

    renamed as (

        select
            -- ids
            cast(_fabric_file_sha256 as varchar) || '-' || cast(_fabric_row as varchar) as ad_spend_row_id,
            cast(_fabric_file as varchar) as file_name,
            cast(_fabric_file_sha256 as varchar) as file_sha256,
            cast(_fabric_row as bigint) as file_line,

            -- strings
            cast(channel as varchar) as channel,
            cast(campaign as varchar) as campaign,

            -- numerics
            cast(spend as numeric(20, 6)) as spend,
            cast(coalesce(clicks, 0) as bigint) as clicks,
            cast(coalesce(conversions, 0) as bigint) as conversions,
            cast(version_number as integer) as version_number,

            -- booleans
            version_age = 1 as is_newest_version,

            -- dates
            cast(date as date) as spend_date,

            -- timestamps
            cast(imported_at at time zone 'UTC' as timestamp) as imported_at

        from numbered

    )

select *
from renamed
