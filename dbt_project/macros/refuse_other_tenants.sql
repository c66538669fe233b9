{#-
    Lets dbt's own commands build nothing that another tenant has of its own: the tables would lie in this tenant's database. A run of
    ETL Fabric sees no FABRIC_TENANT, and its manifest holds nothing of other tenants.
-#}
{% macro refuse_other_tenants() -%}
    {%- if execute and env_var('FABRIC_TENANT', '') -%}
        {%- for unique_id in selected_resources -%}
            {%- set fqn = graph.nodes[unique_id].fqn if unique_id in graph.nodes else [] -%}
            {%- if fqn | length > 3 and fqn[:2] == [project_name, 'tenants'] and fqn[2] != tenant_name() -%}
                {%- set found = fqn[-1] ~ " is tenant " ~ fqn[2] ~ "'s, and FABRIC_TENANT is " ~ tenant_name() -%}
                {{ exceptions.raise_compiler_error(found ~ ". Leave it out of --select, or leave --select out") }}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}
