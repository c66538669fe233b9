{#-
    Numerator / denominator, rounded half away from zero to six decimals; null unless the denominator is greater than 0.
    The result is the same to the last digit in every warehouse. DuckDB divides decimals as doubles, so it divides whole
    numbers here, by divide(), as sqlfmt takes // for a comment. Postgres chooses the number of digits itself, so it is told
    how many to keep. Both round the two values to twelve decimals first, which leaves fourteen digits before the point.
-#}
{% macro ratio(numerator, denominator) -%}
    {{ return(adapter.dispatch('ratio', 'fabric')(numerator, denominator)) }}
{%- endmacro %}

{% macro default__ratio(numerator, denominator) -%}
    cast(
        case
            when {{ denominator }} > 0
            then
                round(
                    cast(cast({{ numerator }} as numeric(38, 12)) as numeric(38, 24))
                    / cast({{ denominator }} as numeric(38, 12)),
                    6
                )
        end as numeric(38, 6)
    )
{%- endmacro %}

{% macro duckdb__ratio(numerator, denominator) -%}
    {%- set dividend = 'cast(cast(' ~ numerator ~ ' as numeric(38, 12)) * 1000000000000 as hugeint)' -%}
    {%- set divisor = 'cast(cast(' ~ denominator ~ ' as numeric(38, 12)) * 1000000000000 as hugeint)' -%}
    cast(
        case
            when {{ denominator }} > 0
            then
                cast(
                    sign({{ dividend }})
                    * divide(2000000 * abs({{ dividend }}) + {{ divisor }}, 2 * {{ divisor }}) as numeric(38, 0)
                )
                * 0.000001
        end as numeric(38, 6)
    )
{%- endmacro %}
