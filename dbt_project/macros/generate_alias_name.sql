{#-
    In dbt every name of a model, seed or snapshot must be unique in the project. So a tenant's own ones are named <tenant>__<name>,
    as models/tenants/<tenant>/<tenant>__<name>.sql; their tables are named <name>, like those of shared models.
-#}
{% macro generate_alias_name(custom_alias_name=none, node=none) -%}
    {%- if custom_alias_name -%} {{ custom_alias_name | trim }}
    {%- elif node.resource_type in ['model', 'seed', 'snapshot'] and node.fqn | length > 3 and node.fqn[:2] == [project_name, 'tenants'] -%}
        {{ node.name.removeprefix(node.fqn[2] ~ '__') }}
    {%- elif node.version -%} {{ node.name ~ '_v' ~ (node.version | replace('.', '_')) }}
    {%- else -%} {{ node.name }}
    {%- endif -%}
{%- endmacro %}
