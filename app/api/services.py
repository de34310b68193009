"""What a route reaches the services through."""

from typing import cast

from flask import Flask, current_app

from app.api.request_metrics import RequestMetrics
from app.bootstrap import Services

_NAME = "nexus"
_METRICS = "nexus-metrics"


def attach(app: Flask, services_: Services) -> None:
    """Give the application its services, and count its requests."""
    app.extensions[_NAME] = services_
    app.extensions[_METRICS] = RequestMetrics(app)


def services() -> Services:
    """Return the services of the application that handles the current request."""
    return cast(Services, current_app.extensions[_NAME])


def request_metrics() -> RequestMetrics:
    """Return the request metrics of the application that handles the current request."""
    return cast(RequestMetrics, current_app.extensions[_METRICS])
