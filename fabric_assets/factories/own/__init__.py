"""What operators add: Dagster definitions of their own, and translators that give hand-written dlt and dbt assets a tenant's keys."""
