-- Deletes up to `most` queue rows, and when none is left up to `most` vectors, of a model that is neither active nor a migration's
-- target. Returns how many. Work before vectors: an episode without work is enqueued anew, one with done work and no vector would
-- be a lie.
CREATE FUNCTION memory_system.drop_model_work(unused_model smallint, most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    vectors bigint;
    work bigint;
BEGIN
    IF EXISTS (SELECT 1 FROM memory_system.embedding_models m WHERE m.model_id = unused_model AND (m.is_active OR m.is_target)) THEN
        RAISE EXCEPTION 'the model is in use' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    DELETE FROM memory_system.embeddings_queue q
    WHERE q.ctid = ANY (ARRAY(SELECT k.ctid FROM memory_system.embeddings_queue k WHERE k.model_id = unused_model LIMIT most));
    GET DIAGNOSTICS work = ROW_COUNT;
    IF work > 0 THEN
        RETURN work;
    END IF;
    DELETE FROM nexus_memory.episode_chunks c
    WHERE c.ctid = ANY (ARRAY(SELECT k.ctid FROM nexus_memory.episode_chunks k WHERE k.model_id = unused_model LIMIT most));
    GET DIAGNOSTICS vectors = ROW_COUNT;
    IF vectors > 0 THEN
        RETURN vectors;
    END IF;
    DELETE FROM nexus_memory.semantic_vectors v
    WHERE v.ctid = ANY (ARRAY(SELECT k.ctid FROM nexus_memory.semantic_vectors k WHERE k.model_id = unused_model LIMIT most));
    GET DIAGNOSTICS vectors = ROW_COUNT;
    RETURN vectors;
END $$;
