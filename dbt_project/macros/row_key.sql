{#-
    One text key of several columns. They are joined by a control character, which their texts do not contain, so that
    ('a-b', 'c') and ('a', 'b-c') stay two keys.
-#}
{% macro row_key(columns) -%}
    md5({%- for column in columns %}cast({{ column }} as varchar){{ ' || chr(31) ||' if not loop.last }} {%- endfor %})
{%- endmacro %}
