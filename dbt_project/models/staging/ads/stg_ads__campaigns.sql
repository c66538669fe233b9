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
            _fabric_imported_at

        from {{ source('ads', 'campaigns') }}

    ),

    renamed as (

        select
            -- ids
            cast(_fabric_file as varchar) as file_name,
            cast(_fabric_file_sha256 as varchar) as file_sha256,
            cast(_fabric_row as bigint) as file_line,

            -- strings
            cast(channel as varchar) as channel,
            cast(campaign as varchar) as campaign,

            -- numerics
            cast(spend as numeric(20, 6)) as spend,
            cast(clicks as bigint) as clicks,
            cast(conversions as bigint) as conversions,

            -- dates
            cast(date as date) as spend_date,

            -- timestamps
            cast(_fabric_imported_at at time zone 'UTC' as timestamp) as imported_at

        from source

    )

select *
from renamed
