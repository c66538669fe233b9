{#-
    Whole cents -> an exact amount of money. Multiplied, not divided: DuckDB divides decimals as doubles, Postgres does not.
-#}
{% macro cents_to_amount(column) -%}
    cast(cast({{ column }} as numeric(18, 0)) * 0.01 as numeric(18, 2))
{%- endmacro %}
