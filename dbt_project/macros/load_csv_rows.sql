{#-
    The rows of a seed on DuckDB, as literals. dbt-duckdb lets DuckDB read the file, which a locked connection does not, or sends a
    parameter for each value: 40,000 rows of three columns take a minute then, and three seconds like this.
-#}
{% macro duckdb__load_csv_rows(model, agate_table) -%}
    {%- set columns = get_seed_column_quoted_csv(model, agate_table.column_names) -%}
    {%- set statements = [] -%}
    {%- for rows in adapter.convert_datetimes_to_strs(agate_table).rows | batch(10000) -%}
        {%- set sql -%}
            insert into {{ this.render() }} ({{ columns }}) values
            {%- for row in rows %}
            ({%- for value in row -%}
                {%- if value is none -%} null {%- else -%} '{{ value | string | replace("'", "''") }}' {%- endif -%} {{- ',' if not loop.last -}}
            {%- endfor -%}) {{- ',' if not loop.last }}
            {%- endfor %}
        {%- endset -%}
        {%- do adapter.add_query(sql, abridge_sql_log=True) -%}
        {%- do statements.append(sql) if loop.first -%}
    {%- endfor -%}
    {{ return(statements[0]) }}
{%- endmacro %}
