select 1 as one, cast(pg_sleep(3) as text) as nothing
