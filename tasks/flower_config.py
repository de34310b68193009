"""Flower's configuration: `celery -A tasks.celery_app flower --conf=tasks/flower_config.py`. Flower runs this file for its names."""

from app.config import load_settings

_settings = load_settings()

address = _settings.flower_host
port = _settings.flower_port
# The password comes from a secret file, so it stands neither on a command line nor in the environment.
basic_auth = [f"admin:{_settings.secret('admin_api_key')}"]
persistent = False
purge_offline_workers = 300
