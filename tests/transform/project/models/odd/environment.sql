{% set names = ["FABRIC_SECRET_KEYS", "WAREHOUSE_URL", "HOME", "PGPASSFILE", "TZ"] %}
select
    {% for name in names %}
        {{ dbt.string_literal(env_var(name, "unset")) }} as {{ name | lower }}{{ ", " if not loop.last }}
    {% endfor %}
