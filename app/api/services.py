"""What a route reaches the services through."""

from typing import cast

from flask import Flask, current_app

from app.bootstrap import Services

_NAME = "nexus"


def attach(app: Flask, services_: Services) -> None:
    """Give the application its services."""
    app.extensions[_NAME] = services_


def services() -> Services:
    """Return the services of the application that handles the current request."""
    return cast(Services, current_app.extensions[_NAME])
