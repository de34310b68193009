"""Reading a form: its fields checked by a model, blanks left out, and the page's own token put aside."""

from typing import Any, TypeVar

from flask import request
from pydantic import ValidationError

from app.api.problems import raise_invalid
from app.fields import StrictModel

_TOKEN = "csrf_token"  # noqa: S105 - the name of a field
_Form = TypeVar("_Form", bound=StrictModel)


def read_form(model: type[_Form], lists: frozenset[str] = frozenset()) -> _Form:
    """Return the form of the current request.

    Args:
        model: What its fields must be.
        lists: Fields that may be given more than once.

    Raises:
        InvalidRequest: Something is wrong; it names what.
    """
    return check(model, {name: values if name in lists else values[-1] for name, values in filled().items()})


def filled() -> dict[str, list[str]]:
    """Return the fields that somebody filled in, each with its values."""
    found = {name: [value for value in values if value.strip()] for name, values in request.form.lists() if name != _TOKEN}
    return {name: values for name, values in found.items() if values}


def check(model: type[_Form], values: dict[str, Any]) -> _Form:
    """Return the values as a model.

    Raises:
        InvalidRequest: Something is wrong; it names what.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise_invalid(error)
