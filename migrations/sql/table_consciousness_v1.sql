CREATE TABLE consciousness.memory_blocks (
    block_id uuid NOT NULL DEFAULT gen_random_uuid(),
    agent_id text NOT NULL,
    label text NOT NULL,
    value text NOT NULL,
    read_only boolean NOT NULL DEFAULT false,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_memory_blocks PRIMARY KEY (block_id),
    CONSTRAINT uq_memory_blocks_agent_id_label UNIQUE (agent_id, label),
    CONSTRAINT ck_memory_blocks_agent_id CHECK (agent_id ~ '^[A-Za-z0-9._@-]{1,128}$'),
    CONSTRAINT ck_memory_blocks_label CHECK (label ~ '\S' AND char_length(label) <= 128)
);
CREATE TABLE consciousness.consciousness_checkpoints (
    checkpoint_id uuid NOT NULL DEFAULT gen_random_uuid(),
    seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    agent_id text NOT NULL,
    checkpoint_type text NOT NULL,
    state_data jsonb NOT NULL,
    identity_hash text NOT NULL,
    continuity_score double precision NOT NULL DEFAULT 1.0,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_consciousness_checkpoints PRIMARY KEY (checkpoint_id),
    CONSTRAINT uq_consciousness_checkpoints_seq UNIQUE (seq),
    CONSTRAINT ck_consciousness_checkpoints_agent_id CHECK (agent_id ~ '^[A-Za-z0-9._@-]{1,128}$'),
    CONSTRAINT ck_consciousness_checkpoints_identity_hash CHECK (identity_hash ~ '^[0-9a-f]{64}$'),
    CONSTRAINT ck_consciousness_checkpoints_continuity CHECK (continuity_score BETWEEN 0 AND 1)
);
CREATE INDEX ix_consciousness_checkpoints_agent_id_seq ON consciousness.consciousness_checkpoints (agent_id, seq DESC);
CREATE TABLE consciousness.distributed_consensus (
    consensus_id uuid NOT NULL DEFAULT gen_random_uuid(),
    term bigint NOT NULL DEFAULT 0,
    leader_instance text,
    decision jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_distributed_consensus PRIMARY KEY (consensus_id)
);
CREATE TABLE consciousness.instance_network (
    instance_id uuid NOT NULL,
    name text NOT NULL,
    address text NOT NULL,
    state text NOT NULL DEFAULT 'unknown',
    last_seen_at timestamptz,
    CONSTRAINT pk_instance_network PRIMARY KEY (instance_id),
    CONSTRAINT ck_instance_network_state CHECK (state IN ('unknown', 'alive', 'suspect', 'gone'))
);
