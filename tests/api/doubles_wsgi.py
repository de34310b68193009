"""The application on doubles, for a real gunicorn."""

from app.config import load_settings
from app.factory import create_app
from tests.api.doubles import Doubles

_settings = load_settings()
app = create_app(_settings, Doubles().as_services(_settings))
