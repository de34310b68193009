"""The application of one gunicorn process, as `app.wsgi:app`."""

from app.api.services import services
from app.config import load_settings
from app.factory import create_app
from app.observability import tracing

_settings = load_settings()
tracing.configure(_settings, "api")
app = create_app(_settings)

# gunicorn imports this module after the fork: each process loads the encoder by itself, in the
# background, and answers everything else meanwhile.
with app.app_context():
    services().search.start_loading()
