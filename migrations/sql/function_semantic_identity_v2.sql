-- The accounting identity of semantic memories, which have no ledger: stored = searchable + pending + processing + dead, all terms from
-- one snapshot, each memory in one class as an episode is. One in no class (no work, no vector of its present words) is the drift.
CREATE FUNCTION memory_system.semantic_identity(only_agent_id text DEFAULT NULL)
RETURNS TABLE (stored bigint, searchable bigint, pending bigint, processing bigint, dead bigint, drift bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH active AS (
        SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active
    ), classes AS (
        SELECT CASE WHEN q.state IN ('pending', 'processing', 'dead') THEN q.state
                    WHEN v.input_sha256 = s.input_sha256 THEN 'searchable'
                    ELSE 'unaccounted' END AS class
        FROM nexus_memory.semantic_memories s
        LEFT JOIN memory_system.embeddings_queue q
            ON q.target_kind = 'semantic' AND q.target_id = s.memory_id
            AND q.model_id = (SELECT a.model_id FROM active a)
        LEFT JOIN nexus_memory.semantic_vectors v ON v.memory_id = s.memory_id AND v.model_id = (SELECT a.model_id FROM active a)
        WHERE only_agent_id IS NULL OR s.agent_id = only_agent_id
    )
    SELECT count(*), count(*) FILTER (WHERE class = 'searchable'), count(*) FILTER (WHERE class = 'pending'),
           count(*) FILTER (WHERE class = 'processing'), count(*) FILTER (WHERE class = 'dead'),
           count(*) FILTER (WHERE class = 'unaccounted')
    FROM classes
$$;
