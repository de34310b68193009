-- How many requests a key may make in a minute; none for as many as the server's default says.
ALTER TABLE memory_system.api_keys ADD COLUMN rate_limit_per_minute integer,
    ADD CONSTRAINT ck_api_keys_rate_limit CHECK (rate_limit_per_minute > 0);
CREATE INDEX ix_audit_log_at ON memory_system.audit_log (at);
GRANT INSERT ON memory_system.audit_log TO nexus_worker;
