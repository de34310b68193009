-- The ledger: one row for each acceptance, edit and deletion of an episode. Nobody who logs in may insert, change or remove a row;
-- the definer's functions append, and deletion erases content_sha256 and nonce while the leaf stays.
CREATE TABLE memory_system.ledger (
    ledger_seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    episode_id uuid NOT NULL,
    seq bigint NOT NULL,
    agent_id text NOT NULL,
    version integer NOT NULL,
    event text NOT NULL,
    leaf bytea NOT NULL,
    content_sha256 bytea,
    nonce uuid,
    idempotency_key_sha256 bytea,
    xact_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_ledger PRIMARY KEY (ledger_seq),
    CONSTRAINT ck_ledger_event CHECK (event IN ('accepted', 'edited', 'deleted'))
);
CREATE INDEX ix_ledger_episode_id ON memory_system.ledger (episode_id, version);
CREATE INDEX ix_ledger_agent_id_seq ON memory_system.ledger (agent_id, seq);
CREATE INDEX ix_ledger_tombstone ON memory_system.ledger (agent_id, idempotency_key_sha256)
    WHERE event = 'deleted' AND idempotency_key_sha256 IS NOT NULL;
CREATE INDEX ix_ledger_deleted ON memory_system.ledger (ledger_seq) WHERE event = 'deleted';

-- Sealed ranges of the ledger: a Merkle root over each range, chained to the one before and signed.
CREATE TABLE memory_system.ledger_heads (
    range_no bigint NOT NULL,
    first_ledger_seq bigint NOT NULL,
    last_ledger_seq bigint NOT NULL,
    void_count integer NOT NULL DEFAULT 0,
    merkle_root bytea NOT NULL,
    previous_sha256 bytea NOT NULL,
    signature bytea NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_ledger_heads PRIMARY KEY (range_no),
    CONSTRAINT ck_ledger_heads_range CHECK (last_ledger_seq >= first_ledger_seq)
);
