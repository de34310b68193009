-- Deletes up to `most` vectors and queue rows of a model that is neither active nor a migration's target. Returns how many.
CREATE FUNCTION memory_system.drop_model_work(unused_model smallint, most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    vectors bigint;
    work bigint;
BEGIN
    IF EXISTS (SELECT 1 FROM memory_system.embedding_models m WHERE m.model_id = unused_model AND (m.is_active OR m.is_target)) THEN
        RAISE EXCEPTION 'the model is in use' USING ERRCODE = 'object_in_use';
    END IF;
    DELETE FROM nexus_memory.episode_chunks c
    WHERE c.ctid = ANY (ARRAY(SELECT k.ctid FROM nexus_memory.episode_chunks k WHERE k.model_id = unused_model LIMIT most));
    GET DIAGNOSTICS vectors = ROW_COUNT;
    DELETE FROM memory_system.embeddings_queue q
    WHERE q.ctid = ANY (ARRAY(SELECT k.ctid FROM memory_system.embeddings_queue k WHERE k.model_id = unused_model LIMIT most));
    GET DIAGNOSTICS work = ROW_COUNT;
    RETURN vectors + work;
END $$;
