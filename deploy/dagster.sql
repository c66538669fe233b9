-- Dagster's own role and database, apart from every tenant's. As a superuser, once:
--     DAGSTER_PASSWORD="$(cat dagster_password)" psql "$ADMIN_URL" -v ON_ERROR_STOP=1 -f deploy/dagster.sql
-- It may be a server of its own. On the tenants' server it is still out of their reach: only its owner may connect.
\getenv password DAGSTER_PASSWORD
create role dagster login nosuperuser nocreatedb nocreaterole noreplication password :'password';
create database dagster owner dagster;
revoke all on database dagster from public;
-- Runs that wait for a lock must not pile up, and a forgotten session must not hold back vacuum.
alter role dagster in database dagster set idle_in_transaction_session_timeout = '5min';
