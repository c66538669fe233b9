{#-
    The tenant of the models. A run of ETL Fabric gives it as a var; its dbt sees no FABRIC_TENANT. dbt's own commands have only that.
    The placeholder is for the parse of a project that has no such var.
-#}
{% macro tenant_name() -%}
    {{ return(env_var('FABRIC_TENANT', var('fabric_tenant', 'fabric_tenant_placeholder'))) }}
{%- endmacro %}
