{#-
    Whole cents -> an exact amount of money. It multiplies, because DuckDB divides decimals as doubles; Postgres does not.
-#}
{% macro cents_to_amount(column) -%} cast(cast({{ column }} as numeric(18, 0)) * 0.01 as numeric(18, 2)) {%- endmacro %}
