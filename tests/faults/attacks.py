"""What a tenant's own models may try: each is the SQL of a model that must come to nothing.

Behind `execute`, so that the project parses: what is tried while it is parsed is refused there.
"""

from pathlib import Path

_ATTACH = "attach if not exists '{folder}/warehouse/globex.duckdb' as other (read_only)"

# Reached by SQL in DuckDB, from the model itself or from its Jinja.
DUCKDB = {
    "attach": '{% if execute %}{% do run_query("' + _ATTACH + '") %}{% endif %}select * from other.globex_raw_shop.orders',
    "attach_in_adapter": '{% if execute %}{% do adapter.execute("' + _ATTACH + '") %}{% endif %}select 1 as one',
    "read_csv": "select * from read_csv('/etc/passwd', header = false, columns = {'line': 'varchar'}, sep = '|', ignore_errors = true)",
    "read_text": "select content from read_text('{folder}/secrets/globex.json')",
    "read_environment": "select content from read_text('/proc/self/environ')",
    "read_by_name": "select * from '{folder}/neighbour.csv'",
    "list_files": "select * from glob('{folder}/*/*')",
    "write_file": "{% if execute %}{% do run_query(\"copy (select 1) to '{folder}/stolen.csv'\") %}{% endif %}select 1 as one",
    "external": "{{ config(materialized='external', location='{folder}/stolen.parquet') }}select 1 as one",
    "install": "{% if execute %}{% do run_query('install httpfs') %}{% endif %}select 1 as one",
    "unlock": "{% if execute %}{% do run_query('set enable_external_access = true') %}{% endif %}select 1 as one",
    "reset": "{% if execute %}{% do run_query('reset lock_configuration') %}{% endif %}select 1 as one",
    "header": '{{ config(sql_header="' + _ATTACH + ';") }}select 1 as one',
}

# Reached by Jinja, on every warehouse. Each selects what it got as `stolen`.
JINJA = {
    "password_by_ref": "select '{% if execute %}{{ ref.config.credentials.path }}{{ ref.config.credentials.password }}{% endif %}' as stolen",
    "password_by_source": "select '{% if execute %}{{ source.db_wrapper.config.credentials.schema }}{% endif %}' as stolen",
    "password_by_adapter": "select '{% if execute %}{{ adapter.config.credentials.schema }}{% endif %}' as stolen",
    "password_by_item": "select '{% if execute %}{{ adapter[\"config\"].credentials.schema }}{% endif %}' as stolen",
    "password_by_filter": "select '{% if execute %}{{ (adapter | attr(\"config\")).credentials.schema }}{% endif %}' as stolen",
    "password_by_map": "select '{% if execute %}{{ ([adapter] | map(attribute=\"config\") | list)[0].credentials.schema }}{% endif %}' as stolen",
    "password_by_format": "select '{% if execute %}{{ \"{0.config.credentials.schema}\".format(adapter) }}{% endif %}' as stolen",
    "password_by_connection": "select '{% if execute %}{{ adapter.add_query(\"select 1\")[0].credentials.schema }}{% endif %}' as stolen",
    "driver": "select '{% if execute %}{{ adapter.add_query(\"select 1\")[1].description | length }}{% endif %}' as stolen",
    "file_by_table": 'select \'{% if execute %}{{ run_query("select 1").from_csv("{folder}/neighbour.csv").columns[0].values()[0] }}{% endif %}\' as stolen',
    "write_by_table": "{% if execute %}{% do run_query('select 1 as one').to_csv('{folder}/stolen_by_table.csv') %}{% endif %}select 1 as stolen",
    "write_by_node": "{% if execute %}{% do config.model.write_node('{folder}', 'stolen', 'by node') %}{% endif %}select 1 as stolen",
    "macro": "select '{% if execute %}{{ run_query.macro.name }}{% endif %}' as stolen",
    "everything": "select '{% if execute %}{{ ref.manifest.nodes | length }}{% endif %}' as stolen",
    "secret_variable": "select '{{ env_var(\"DBT_ENV_SECRET_FABRIC_PASSWORD\") if execute }}' as stolen",
    "our_variable": "select '{{ env_var(\"FABRIC_SECRET_KEYS\") if execute }}' as stolen",
}

# Python in the process that knows the login: a model calls the materialization itself, and pretends to be a Python model.
DUCKDB["python"] = """{% if execute %}
{% do context.update({'compiled_code': "import pathlib\\npathlib.Path('{folder}/stolen_by_python').write_text('x')"}) %}
{% do context.model.update({'language': 'python'}) %}
{% do context.materialization_table_duckdb() %}
{% endif %}select 1 as one"""

# dbt-duckdb formats a text of the caller's with Python objects as it makes a relation of a source: the environment, and other tenants' models.
_SOURCE = (
    "namespace(identifier='a', name='a', schema='sc', database='db', tags=[], config=none, quoting_dict={}, resource_type='source', catalog_name=none,"
    " compiled_code='', meta={'external_location': '{r.__init__.__globals__[os].environ}', 'r': ref})"
)
DUCKDB |= {
    name: "{% if execute %}{% set made = "
    + maker
    + "(namespace(quoting={}), "
    + _SOURCE
    + ") %}{% endif %}select '{{ made.external | length if execute }}' as stolen"
    for name, maker in {
        "environment_by_source": "api.Relation.create_from_source",
        "environment_by_node": "api.Relation.create_from",
        "environment_by_this": "this.create_from_source",
        "environment_by_item": "this['create_from_source']",
        "environment_by_get": "this.get('create_from_source')",
        "environment_by_filter": "(api.Relation | attr('create_from'))",
        "environment_by_map": "([adapter.Relation] | map(attribute='create_from_source') | list)[0]",
    }.items()
}

POSTGRES = {
    "other_tenant": "select * from globex_raw_shop.orders",
    "other_view": "select * from globex_marts.orders",
    "other_schema": "{% if execute %}{% do run_query('create table globex_marts.planted as select 1 as one') %}{% endif %}select 1 as one",
    "reset_role": "{% if execute %}{% do run_query('reset role') %}{% endif %}select * from globex_raw_shop.orders",
    "set_role": "{% if execute %}{% do run_query('set role fabric_globex') %}{% endif %}select 1 as one",
    "authorization": "{% if execute %}{% do run_query('set session authorization fabric_globex') %}{% endif %}select 1 as one",
    "pg_read_file": "select pg_read_file('PG_VERSION') as content",
    "program": "{% if execute %}{% do run_query(\"copy (select 1) to program 'cat > /dev/null'\") %}{% endif %}select 1 as one",
    "passwords": "select rolpassword from pg_authid",
    "header": "{{ config(sql_header='set role fabric_globex;') }}select 1 as one",
}

# Everything that Jinja gives freely, as one row.
LOOKS_AROUND = """
{% set found = [target, invocation_args_dict, dbt_metadata_envs, flags, graph, model, env, var('fabric_tenant')] %}
select
    {% for each in found %}'{{ each | string | replace("'", "''") }}' as found_{{ loop.index }},{% endfor %}
    '{{ target.password }}{{ target.pass }}' as passwords,
    '{{ env_var("CANARY_OF_THE_PROJECT", "unset") }} {{ env_var("FABRIC_SECRET_KEYS", "unset") }} {{ env_var("GLOBEX_URL", "unset") }}' as variables
"""


def write_models(project: Path, attacks: dict[str, str], *, folder: Path) -> list[str]:
    """Write the attacks as acme's own models; give their unique ids."""
    models = project / "models" / "tenants" / "acme"
    models.mkdir(parents=True, exist_ok=True)
    for name, sql in attacks.items():
        (models / f"acme__{name}.sql").write_text(sql.replace("{folder}", str(folder)) + "\n")
    return [f"model.fabric.acme__{name}" for name in attacks]
