-- The heatmap holds the calls of the last days that call_volume holds day by day.
with

window_days as (
    select
        source_system,
        project_id,
        date_day
    from {{ ref('int_work_days') }}
    where
        date_day <= as_of_date
        and {{ day_of_date('date_day') }}
        > {{ day_of_date('as_of_date') }} - {{ var('activity_window_days') }}
),

parts as (
    select
        source_system,
        project_id,
        subject_type,
        subject_id,
        booked,
        due,
        held,
        conducted
    from {{ ref('call_heatmap') }}
    union all
    select
        call_volume.source_system,
        call_volume.project_id,
        call_volume.subject_type,
        call_volume.subject_id,
        -call_volume.booked as booked,
        -call_volume.due as due,
        -call_volume.held as held,
        -call_volume.conducted as conducted
    from {{ ref('call_volume') }} as call_volume
    inner join window_days
        on
            call_volume.source_system = window_days.source_system
            and call_volume.project_id = window_days.project_id
            and call_volume.period_start = window_days.date_day
    where call_volume.period_type = 'day'
)

select
    source_system,
    project_id,
    subject_type,
    subject_id
from parts
group by
    source_system,
    project_id,
    subject_type,
    subject_id
having sum(booked) != 0 or sum(due) != 0 or sum(held) != 0 or sum(conducted) != 0
