-- Who is at work: every dispatcher and worker writes its row at each heartbeat. The window of claims is sized by the slots here.
CREATE TABLE memory_system.workers (
    worker_id text NOT NULL,
    kind text NOT NULL,
    hostname text NOT NULL,
    pid integer NOT NULL,
    slots integer NOT NULL DEFAULT 0,
    model_id smallint,
    precision text,
    items_per_second double precision,
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_workers PRIMARY KEY (worker_id),
    CONSTRAINT fk_workers_model FOREIGN KEY (model_id) REFERENCES memory_system.embedding_models (model_id),
    CONSTRAINT ck_workers_kind CHECK (kind IN ('dispatcher', 'worker'))
);
CREATE TABLE memory_system.beat_ticks (
    task text NOT NULL,
    slot timestamptz NOT NULL,
    ran_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_beat_ticks PRIMARY KEY (task, slot)
);
