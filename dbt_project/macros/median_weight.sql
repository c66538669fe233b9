{#-
    The weight of a value in the median of all values: sum(value * weight) is the median, which is the mean of the two middle
    values if their number is even. size_rank is the value's rank by size, from 1; values is their number. The result is exact
    for decimals in every warehouse; percentile_cont is a double on Postgres.
-#}
{% macro median_weight(size_rank, values) -%}
    case
        when 2 * {{ size_rank }} = {{ values }} + 1
        then 1.0
        when 2 * {{ size_rank }} in ({{ values }}, {{ values }} + 2)
        then 0.5
        else 0.0
    end
{%- endmacro %}
