-- What became of queue rows, ever: the counters behind embeddings_processed_total, embeddings_dead_total and two histograms. Written
-- in the transaction that changes the rows. A writer adds to any row that nobody holds, or makes one more: no row is waited for, and
-- there are as many as writers were ever at it in the same moment. The sum over all rows counts; no single row means anything.
-- An element of `..._counts` is one bucket's own observations; the bounds stand in app/observability/metrics.py.
CREATE TABLE memory_system.done_tallies (
    tally_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    target_kind text NOT NULL,
    rows bigint NOT NULL,
    processing_counts bigint[] NOT NULL,
    processing_seconds double precision NOT NULL,
    searchable_counts bigint[] NOT NULL,
    searchable_seconds double precision NOT NULL,
    CONSTRAINT pk_done_tallies PRIMARY KEY (tally_id),
    CONSTRAINT ck_done_tallies_target_kind CHECK (target_kind IN ('episodic', 'semantic')),
    CONSTRAINT ck_done_tallies_counts CHECK (cardinality(processing_counts) = 13 AND cardinality(searchable_counts) = 19)
) WITH (fillfactor = 50);
CREATE TABLE memory_system.dead_tallies (
    tally_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    cause text NOT NULL,
    rows bigint NOT NULL,
    CONSTRAINT pk_dead_tallies PRIMARY KEY (tally_id),
    CONSTRAINT ck_dead_tallies_cause CHECK (cause ~ '^[a-z_]{1,40}$')
) WITH (fillfactor = 50);
