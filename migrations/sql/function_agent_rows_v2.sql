-- How many rows each table holds of the current agent; all zero proves that it is forgotten. Of the ledger, rows that still hold a
-- content hash or a nonce: tombstones stay and hold neither.
CREATE FUNCTION memory_system.agent_rows()
RETURNS TABLE (store text, row_count bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.store, s.row_count FROM (SELECT memory_system.current_agent() AS id) agent CROSS JOIN LATERAL (
        SELECT 'episodes', count(*) FROM nexus_memory.zep_episodic_memory t WHERE t.agent_id = agent.id
        UNION ALL SELECT 'vectors', (SELECT count(*) FROM nexus_memory.episode_chunks t WHERE t.agent_id = agent.id)
            + (SELECT count(*) FROM nexus_memory.semantic_vectors t WHERE t.agent_id = agent.id)
        UNION ALL SELECT 'queue_rows', count(*) FROM memory_system.embeddings_queue t WHERE t.agent_id = agent.id
        UNION ALL SELECT 'ledger_contents', count(*) FROM memory_system.ledger t
            WHERE t.agent_id = agent.id AND (t.content_sha256 IS NOT NULL OR t.nonce IS NOT NULL)
        UNION ALL SELECT 'semantic_memories', count(*) FROM nexus_memory.semantic_memories t WHERE t.agent_id = agent.id
        UNION ALL SELECT 'working_contexts', count(*) FROM nexus_memory.working_memory_contexts t WHERE t.agent_id = agent.id
        UNION ALL SELECT 'memory_blocks', count(*) FROM consciousness.memory_blocks t WHERE t.agent_id = agent.id
        UNION ALL SELECT 'checkpoints', count(*) FROM consciousness.consciousness_checkpoints t WHERE t.agent_id = agent.id
        UNION ALL SELECT 'projects', count(*) FROM nexus_memory.projects t WHERE t.agent_id = agent.id
    ) s (store, row_count)
$$;
