with

    rows_of_versions as (

        select
            file_name,
            version_number,
            is_newest_version,
            imported_at,
            spend_date,
            channel,
            campaign,
            spend,
            clicks,
            conversions

        from {{ ref('int_ad_spend_versions') }}

    ),

    versions as (select distinct file_name, version_number, imported_at from rows_of_versions),

    totals as (

        select
            file_name,
            version_number,
            is_newest_version,
            spend_date,
            channel,
            campaign,
            count(*) as rows_of_key,
            sum(spend) as spend,
            sum(clicks) as clicks,
            sum(conversions) as conversions

        from rows_of_versions

        group by file_name, version_number, is_newest_version, spend_date, channel, campaign

    ),

    -- Each version twice: as the new side of its own change, and as the old side of the next version's change.
    sides as (

        select
            file_name,
            version_number,
            spend_date,
            channel,
            campaign,
            null as rows_before,
            rows_of_key as rows_after,
            null as spend_before,
            spend as spend_after,
            null as clicks_before,
            clicks as clicks_after,
            null as conversions_before,
            conversions as conversions_after

        from totals

        where version_number > 1

        union all

        select
            file_name,
            version_number + 1 as version_number,
            spend_date,
            channel,
            campaign,
            rows_of_key as rows_before,
            null as rows_after,
            spend as spend_before,
            null as spend_after,
            clicks as clicks_before,
            null as clicks_after,
            conversions as conversions_before,
            null as conversions_after

        from totals

        where not is_newest_version

    ),

    compared as (

        select
            file_name,
            cast(version_number as integer) as version_number,
            spend_date,
            channel,
            campaign,
            cast(max(rows_before) as integer) as rows_before,
            cast(max(rows_after) as integer) as rows_after,
            cast(max(spend_before) as numeric(20, 6)) as spend_before,
            cast(max(spend_after) as numeric(20, 6)) as spend_after,
            cast(max(clicks_before) as bigint) as clicks_before,
            cast(max(clicks_after) as bigint) as clicks_after,
            cast(max(conversions_before) as bigint) as conversions_before,
            cast(max(conversions_after) as bigint) as conversions_after

        from sides

        group by file_name, version_number, spend_date, channel, campaign

    ),

    final as (

        select
            {{ row_key(['compared.file_name', 'compared.version_number', 'compared.spend_date', 'compared.channel', 'compared.campaign']) }}
            as version_change_id,
            compared.file_name,
            compared.version_number,
            versions.imported_at,
            compared.spend_date,
            compared.channel,
            compared.campaign,
            cast(
                case
                    when compared.rows_before is null
                    then 'added'
                    when compared.rows_after is null
                    then 'gone'
                    else 'changed'
                end as varchar
            ) as change,
            compared.rows_before,
            compared.rows_after,
            compared.spend_before,
            compared.spend_after,
            cast(
                coalesce(compared.spend_after, 0) - coalesce(compared.spend_before, 0) as numeric(20, 6)
            ) as spend_difference,
            compared.clicks_before,
            compared.clicks_after,
            compared.conversions_before,
            compared.conversions_after

        from compared

        inner join
            versions on compared.file_name = versions.file_name and compared.version_number = versions.version_number

        where
            compared.rows_before is distinct from compared.rows_after
            or compared.spend_before is distinct from compared.spend_after
            or compared.clicks_before is distinct from compared.clicks_after
            or compared.conversions_before is distinct from compared.conversions_after

    )

select *
from final
