-- How much of what an exact scan finds the vector index found, by sample. Agents whose vectors are scanned exactly anyway are left out.
CREATE TABLE memory_system.recall_checks (
    check_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    model_id smallint NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT now(),
    samples integer NOT NULL,
    recall double precision NOT NULL,
    worst double precision NOT NULL,
    CONSTRAINT pk_recall_checks PRIMARY KEY (check_id),
    CONSTRAINT fk_recall_checks_model FOREIGN KEY (model_id) REFERENCES memory_system.embedding_models (model_id),
    CONSTRAINT ck_recall_checks_recall CHECK (samples > 0 AND worst BETWEEN 0 AND recall AND recall <= 1)
);
