"""Builds the Flask application: routes, error answers, hooks. It opens no connection and loads no model."""

from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI

from app.api import (
    agents,
    authentication,
    consciousness,
    docs,
    episodes,
    hooks,
    integrity,
    keys,
    operations,
    problems,
    queue,
    search,
    semantic,
    transfer,
    working,
)
from app.api import request as requests
from app.api.schemas.problem import Problem
from app.api.services import attach
from app.bootstrap import Services, build_services
from app.config import Settings
from app.console import site

_DESCRIPTION = """Durable memory of AI agents. Send a key as `X-API-Key` or `Authorization: Bearer <key>`.
Every answer carries `X-Request-ID`; every error is a problem (RFC 9457) with a stable `code`."""


class Application(OpenAPI):
    """The Flask application with strict requests."""

    request_class = requests.StrictRequest


def create_app(settings: Settings, services: Services | None = None) -> Application:
    """Return the application.

    Args:
        settings: All settings.
        services: What the routes call; built from the settings when None.
    """
    app = Application(
        "nexus-cerebro",
        info=Info(title="NEXUS Cerebro", version="1.0.0", description=_DESCRIPTION),
        security_schemes={
            "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "Bearer": {"type": "http", "scheme": "bearer"},
        },
        validation_error_model=Problem,
        validation_error_callback=problems.raise_invalid,
        doc_ui=False,
        static_folder=None,
    )
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    attach(app, services if services is not None else build_services(settings))
    hooks.install(app)
    authentication.install(app, {site.NAME: site.identify})
    requests.install(app)
    problems.install(app)
    for resource in (episodes, working, semantic, consciousness, search, agents, transfer, integrity, queue, keys, operations):
        app.register_api(resource.blueprint)
    app.register_blueprint(docs.blueprint)
    site.install(app, settings)
    docs.describe(app)
    return app
