"""The metadata that every table registers with, and the column types and defaults they share."""

from sqlalchemy import DateTime, MetaData
from sqlalchemy import text as sql

metadata = MetaData()

TimestampTz = DateTime(timezone=True)
NOW = sql("now()")
NEW_UUID = sql("gen_random_uuid()")
EMPTY_OBJECT = sql("'{}'::jsonb")
