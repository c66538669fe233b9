{#-
    Every schema carries its tenant's name: two tenants may share a database, never a schema. Models under
    models/tenants/<tenant>/ name their tenant outright, so that two tenants may each have a model of the same name.
-#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set own = node.resource_type == 'model' and node.fqn | length > 3 and node.fqn[1] == 'tenants' -%}
    {{ node.fqn[2] if own else var('fabric_tenant') }}_{{ (custom_schema_name or 'marts') | trim }}
{%- endmacro %}
