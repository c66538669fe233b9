{#-
    One text key of several columns. They are joined by a control character, which no text of theirs holds, so that
    ('a-b', 'c') and ('a', 'b-c') stay two keys.
-#}
{% macro row_key(columns) -%}
    md5(
        {%- for column in columns %}
        cast({{ column }} as varchar){{ ' || chr(31) ||' if not loop.last }}
        {%- endfor %}
    )
{%- endmacro %}
