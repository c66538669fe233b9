-- Dagster's own role and database, separate from every tenant's. Run it once, as a superuser:
--     DAGSTER_PASSWORD="$(cat dagster_password)" psql "$ADMIN_URL" -v ON_ERROR_STOP=1 -f deploy/dagster.sql
-- The database may be on a server of its own. On the tenants' server they cannot reach it either: only its owner may connect.
\getenv password DAGSTER_PASSWORD
create role dagster login nosuperuser nocreatedb nocreaterole noreplication password :'password';
create database dagster owner dagster;
revoke all on database dagster from public;
-- Runs that wait for a lock must not pile up, and a forgotten session must not block vacuum.
alter role dagster in database dagster set idle_in_transaction_session_timeout = '5min';
