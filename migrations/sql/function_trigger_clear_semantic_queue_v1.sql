-- AFTER DELETE of a semantic memory: its work goes with it.
CREATE FUNCTION nexus_memory.trigger_clear_semantic_queue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM memory_system.embeddings_queue q WHERE q.target_kind = 'semantic' AND q.target_id = OLD.memory_id;
    RETURN NULL;
END $$;
