"""Starts celery-exporter with the broker's password from its secret file: neither a command line nor `docker inspect` shows it."""

import os
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from src.cli import cli  # The distribution prometheus-exporter-celery calls its package so.


def with_credentials(url: str) -> str:
    """Return a broker's URL with user and password; one that has them stays as it is."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        return url
    kind, user = ("RABBITMQ", "RABBITMQ_USER") if parts.scheme.startswith("amqp") else ("REDIS", "REDIS_BROKER_USER")
    password = Path(os.environ[f"{kind}_PASSWORD_FILE"]).read_text(encoding="utf-8").strip()
    return urlunsplit(parts._replace(netloc=f"{quote(os.environ[user], safe='')}:{quote(password, safe='')}@{parts.netloc}"))


if __name__ == "__main__":
    os.environ["CE_BROKER_URL"] = ";".join(with_credentials(node.strip()) for node in os.environ["BROKER_URL"].split(";") if node.strip())
    cli(auto_envvar_prefix="CE")
