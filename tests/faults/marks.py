"""Which brokers a case runs on, if not on Redis alone."""

import pytest

BOTH = pytest.mark.brokers("redis", "rabbitmq")
RABBITMQ = pytest.mark.brokers("rabbitmq")
CLUSTER = pytest.mark.brokers("rabbitmq-cluster")
