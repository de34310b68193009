-- Keys, administrative audit and reconciliation runs: the service's own records, not an agent's data.
CREATE TABLE memory_system.api_keys (
    key_id uuid NOT NULL DEFAULT gen_random_uuid(),
    key_sha256 bytea NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    agent_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    CONSTRAINT pk_api_keys PRIMARY KEY (key_id),
    CONSTRAINT uq_api_keys_key_sha256 UNIQUE (key_sha256),
    CONSTRAINT ck_api_keys_role CHECK (role IN ('admin', 'agent', 'operator', 'readonly')),
    CONSTRAINT ck_api_keys_agent_id CHECK ((role IN ('agent', 'readonly')) = (agent_id IS NOT NULL)),
    CONSTRAINT ck_api_keys_agent_id_pattern CHECK (agent_id ~ '^[A-Za-z0-9._@-]{1,128}$'),
    CONSTRAINT ck_api_keys_key_sha256 CHECK (octet_length(key_sha256) = 32)
);
CREATE TABLE memory_system.audit_log (
    audit_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT now(),
    key_id uuid,
    action text NOT NULL,
    subject text,
    details jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT pk_audit_log PRIMARY KEY (audit_id)
);
CREATE TABLE memory_system.reconciliation_runs (
    run_id uuid NOT NULL DEFAULT gen_random_uuid(),
    kind text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    dry_run boolean NOT NULL DEFAULT false,
    ranges_compared bigint NOT NULL DEFAULT 0,
    ranges_different bigint NOT NULL DEFAULT 0,
    found jsonb NOT NULL DEFAULT '{}',
    repaired jsonb NOT NULL DEFAULT '{}',
    error text,
    CONSTRAINT pk_reconciliation_runs PRIMARY KEY (run_id),
    CONSTRAINT ck_reconciliation_runs_kind CHECK (kind IN ('working', 'vectors'))
);
