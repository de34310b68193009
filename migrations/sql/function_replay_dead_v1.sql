-- Gives dead rows a new set of attempts: those named, those of a cause, or with neither all. Rows that died after `dead_before`
-- stay, so that a replay in steps ends even while rows die again. A row that went alone keeps going alone. Returns how many.
CREATE FUNCTION memory_system.replay_dead(ids uuid[], only_cause text, dead_before timestamptz, most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    replayed bigint;
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT q.target_kind, q.target_id, q.model_id FROM memory_system.embeddings_queue q
        WHERE q.state = 'dead' AND q.model_id IN (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active OR m.is_target)
          AND (ids IS NULL OR q.target_id = ANY (ids))
          AND (only_cause IS NULL OR coalesce(q.last_error, 'unknown') = only_cause)
          AND coalesce(q.processed_at, q.enqueued_at) <= dead_before
        ORDER BY q.target_id LIMIT most FOR UPDATE SKIP LOCKED
    )
    UPDATE memory_system.embeddings_queue q
    SET state = 'pending', retry_count = 0, due_at = now(), last_error = NULL, enqueued_at = now(), processed_at = NULL
    FROM picked p
    WHERE q.target_kind = p.target_kind AND q.target_id = p.target_id AND q.model_id = p.model_id;
    GET DIAGNOSTICS replayed = ROW_COUNT;
    RETURN replayed;
END $$;
