"""Every error of the tree has an HTTP status."""

from http import HTTPStatus

import pytest

from app import errors
from app.api.problems import status_of


def _all(kind: type[errors.NexusError]) -> list[type[errors.NexusError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _all(child))]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidRequest("x"), 422),
        (errors.InvalidItems("x", []), 422),
        (errors.MalformedBody("x"), 400),
        (errors.ContentTooLarge("x"), 413),
        (errors.Unauthenticated("x"), 401),
        (errors.PermissionDenied("x"), 403),
        (errors.NotFound("x"), 404),
        (errors.IdempotencyMismatch("x"), 409),
        (errors.Gone("x"), 410),
        (errors.EncoderUnavailable("x"), 503),
        (errors.ConfigurationError("x"), 500),
    ],
)
def test_error_has_its_status(error: errors.NexusError, status: int) -> None:
    assert status_of(error) == status


def test_every_class_of_the_tree_has_a_status_and_only_real_failures_are_5xx() -> None:
    for kind in _all(errors.NexusError):
        status = status_of(kind.__new__(kind))
        assert isinstance(status, HTTPStatus)
        assert (status >= 500) == (
            not issubclass(
                kind,
                (
                    errors.InvalidRequest,
                    errors.Unauthenticated,
                    errors.PermissionDenied,
                    errors.NotFound,
                    errors.Conflict,
                    errors.Gone,
                    errors.RateLimited,
                ),
            )
        ), kind
