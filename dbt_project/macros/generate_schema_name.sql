{#-
    Every schema's name begins with its tenant's name: two tenants may share a database, but never a schema. For models, seeds and
    snapshots in <kind>/tenants/<tenant>/ the folder gives the tenant, so that two tenants may have tables of the same name.
    All snapshots lie in <tenant>_snapshots, whatever +schema they have: nothing else is built there, so nothing replaces one.
-#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set own = node.resource_type in ['model', 'seed', 'snapshot'] and node.fqn | length > 3 and node.fqn[:2] == [project_name, 'tenants'] -%}
    {%- set usual = 'seeds' if node.resource_type == 'seed' else 'marts' -%}
    {%- set schema = 'snapshots' if node.resource_type == 'snapshot' else custom_schema_name or usual -%}
    {{ node.fqn[2] if own else tenant_name() }}_{{ schema | trim }}
{%- endmacro %}
