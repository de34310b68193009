-- AFTER DELETE, statement-level: the work for a deleted episode goes with it, in every state.
CREATE FUNCTION nexus_memory.trigger_clear_queue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM memory_system.embeddings_queue q USING old_rows o
    WHERE q.target_kind = 'episodic' AND q.target_id = o.episode_id;
    RETURN NULL;
END $$;
