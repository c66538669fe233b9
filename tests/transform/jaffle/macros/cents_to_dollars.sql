{% macro cents_to_dollars(column_name) -%}
    {{ return(adapter.dispatch('cents_to_dollars')(column_name)) }}
{%- endmacro %}

{% macro default__cents_to_dollars(column_name) -%} cast({{ column_name }} * 0.01 as numeric(16, 2)) {%- endmacro %}

{% macro postgres__cents_to_dollars(column_name) -%}
    (cast({{ column_name }} as numeric(16, 2)) / 100)::numeric(16, 2)
{%- endmacro %}
