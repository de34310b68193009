"""The application of one gunicorn process, as `app.wsgi:app`."""

import sys

import structlog
from gunicorn.arbiter import Arbiter

from app.api.services import services
from app.bootstrap import check_model
from app.config import CONSOLE_KEY_SECRET, load_settings
from app.errors import ConfigurationError
from app.factory import Application, create_app
from app.observability import tracing


def _start() -> Application:
    """Return the application, its encoder loading in the background; end gunicorn where waiting would not help."""
    settings = load_settings()
    try:
        settings.secret(CONSOLE_KEY_SECRET)
        check_model(settings, "nexus_app")
    except ConfigurationError as error:
        structlog.get_logger().critical(
            "api_refuses_to_start", code=error.code, error=error.message, action="mend what it names, then start it again"
        )
        sys.exit(Arbiter.WORKER_BOOT_ERROR)
    # gunicorn imports this module after the fork: each process traces, and loads the encoder, by itself.
    tracing.configure(settings, "api")
    built = create_app(settings)
    with built.app_context():
        services().search.start_loading()
    return built


app = _start()
