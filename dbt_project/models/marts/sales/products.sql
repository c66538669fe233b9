with

    products as (

        select product_id, product_name, product_type, product_description, price from {{ ref('stg_shop__products') }}

    ),

    supplies as (select product_id, cost, is_perishable from {{ ref('stg_shop__supplies') }}),

    supply_costs as (

        select
            product_id,
            count(*) as supplies,
            sum(case when is_perishable then 1 else 0 end) as perishable_supplies,
            sum(cost) as supply_cost

        from supplies

        group by product_id

    ),

    final as (

        select
            products.product_id,
            products.product_name,
            products.product_type,
            products.product_description,
            products.product_type = 'jaffle' as is_food,
            products.product_type = 'beverage' as is_drink,
            products.price,
            cast(coalesce(supply_costs.supplies, 0) as integer) as supplies,
            cast(coalesce(supply_costs.perishable_supplies, 0) as integer) as perishable_supplies,
            cast(coalesce(supply_costs.supply_cost, 0) as numeric(18, 2)) as supply_cost

        from products

        left join supply_costs on products.product_id = supply_costs.product_id

    )

select *
from final
