{#-
    Every schema's name begins with its tenant's name: two tenants may share a database, but never a schema. For models in
    models/tenants/<tenant>/ the folder gives the tenant, so that two tenants may have models of the same name.
-#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set own = node.resource_type == 'model' and node.fqn | length > 3 and node.fqn[1] == 'tenants' -%}
    {{ node.fqn[2] if own else var('fabric_tenant') }}_{{ (custom_schema_name or 'marts') | trim }}
{%- endmacro %}
