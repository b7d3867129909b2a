"""Exact numbers as operators write them."""

from decimal import Decimal, InvalidOperation


def plain_number(text: str, decimals: int) -> Decimal | None:
    """The number that a text means; None where it is none, or has more decimals than that."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    if not number.is_finite() or number.adjusted() > 14 or number != round(number, decimals):
        return None
    return number


def written_number(number: Decimal) -> str:
    """A number without zeros at its end, in the form that `plain_number` reads."""
    return f"{number.normalize():f}"
