"""The services of the stack that runs, for commands that look at or change what it holds."""

from app.bootstrap import Services, build_services
from app.config import Settings, load_settings
from app.observability.logs import configure_logging
from app.stack import control
from app.stack.environment import is_given


def open_services() -> Services:
    """Return the services, logged in as nexus_app: without an agent that role sees no content at all."""
    return build_services(quiet_settings())


def given_settings() -> Settings:
    """Return the settings of the stack that runs here, or of the database that DATABASE_URL names.

    Raises:
        StackError: No stack runs here and none is named.
    """
    settings = load_settings()
    if not is_given(settings, "database_url"):
        raise control.none_runs(settings)
    return settings


def quiet_settings() -> Settings:
    """Return the same, with logs of what went wrong only.

    Raises:
        StackError: No stack runs here and none is named.
    """
    settings = given_settings()
    # What a command did it prints itself; its log has only what went wrong, and on stderr.
    configure_logging(settings.model_copy(update={"log_level": "WARNING"}), "command")
    return settings
