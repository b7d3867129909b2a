"""Rules about a row as a whole: values that fit their fields one by one, but not together."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

#: Highest and lowest CSAT score; NPS has the whole range of the field.
_CSAT = (1, 5)


def row_problems(entity_name: str, columns: dict[str, pa.Array]) -> dict[int, tuple[str, str]]:
    """Index of each row of a batch that breaks a rule of its entity -> the field and the reason."""
    rule = _RULES.get(entity_name)
    return rule(columns) if rule else {}


def _score_suits_survey(columns: dict[str, pa.Array]) -> dict[int, tuple[str, str]]:
    score = columns["score"]
    outside = pc.or_(pc.less(score, _CSAT[0]), pc.greater(score, _CSAT[1]))
    wrong = pc.and_(pc.equal(columns["survey_type"], "csat"), outside)
    return {
        index: ("score", f"{score[index].as_py()} is no CSAT score ({_CSAT[0]} to {_CSAT[1]})")
        for index in pc.indices_nonzero(pc.fill_null(wrong, False)).to_pylist()
    }


def _ends_after_it_begins(columns: dict[str, pa.Array]) -> dict[int, tuple[str, str]]:
    begins, ends = columns["active_from"], columns.get("active_to")
    if ends is None:
        return {}
    wrong = pc.fill_null(pc.less(ends, begins), False)
    return {
        index: ("active_to", f"{ends[index]} is before active_from, {begins[index]}")
        for index in pc.indices_nonzero(wrong).to_pylist()
    }


_RULES: dict[str, Callable[[dict[str, pa.Array]], dict[int, tuple[str, str]]]] = {
    "satisfaction": _score_suits_survey,
    "reps": _ends_after_it_begins,
}
