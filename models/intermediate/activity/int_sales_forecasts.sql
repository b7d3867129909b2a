with

forecasts as (
    select * from {{ ref('int_subject_forecasts') }}
),

made_for as (
    select * from {{ ref('int_forecast_days') }}
),

subjects as (
    select * from {{ ref('int_subjects') }}
),

final as (
    select
        forecasts.*,
        coalesce(subjects.subject_name, forecasts.subject_id) as subject_name,
        made_for.month,
        made_for.is_current
    from forecasts
    inner join made_for
        on
            forecasts.source_system = made_for.source_system
            and forecasts.project_id = made_for.project_id
            and forecasts.made_for_date = {{ date_of_day('made_for.made_for_day') }}
    left join subjects
        on
            {{ same_subject('forecasts', 'subjects') | indent(12) }}
)

select * from final
