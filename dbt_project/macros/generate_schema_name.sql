{#- Every schema carries its tenant's name: two tenants may share a database, never a schema. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ var('fabric_tenant') }}_{{ (custom_schema_name or 'marts') | trim }}
{%- endmacro %}
