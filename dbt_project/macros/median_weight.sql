{#-
    The weight that the value at a place (1, 2, ... in order of size) has in the median of so many values: sum(value * weight)
    is the median, the mean of the two middle values where their number is even. Exact on decimals in every warehouse;
    percentile_cont is a double on Postgres.
-#}
{% macro median_weight(place, values) -%}
    case
        when 2 * {{ place }} = {{ values }} + 1 then 1.0
        when 2 * {{ place }} in ({{ values }}, {{ values }} + 2) then 0.5
        else 0.0
    end
{%- endmacro %}
