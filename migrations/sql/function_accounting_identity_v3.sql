-- accepted = searchable + pending + processing + dead + deleted, all terms from one snapshot. Each live episode is in one class:
-- what the queue says of unfinished work goes first, then whether a vector of the present input is there. An episode in no
-- class (no work, no vector) and one that was never accepted both break the identity, which is their purpose. Of the queue only
-- unfinished work is read, through its partial indexes: that other work is done says nothing that the vector does not.
-- Whether a vector is there is read from the primary key of the chunks, and whether it is of the present input from the episode's row.
-- Joins are hashed, whatever the statistics say: those of before a bulk load promise no unfinished work, and a loop over none is one over a million.
CREATE FUNCTION memory_system.accounting_identity(only_agent_id text DEFAULT NULL)
RETURNS TABLE (accepted bigint, searchable bigint, pending bigint, processing bigint, dead bigint, deleted bigint, drift bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off
SET plan_cache_mode = force_custom_plan
AS $$
    WITH events AS (
        SELECT count(*) FILTER (WHERE l.event = 'accepted') AS accepted, count(*) FILTER (WHERE l.event = 'deleted') AS deleted
        FROM memory_system.ledger l
        WHERE only_agent_id IS NULL OR l.agent_id = only_agent_id
    ), unfinished AS (
        SELECT q.target_id, q.state FROM memory_system.embeddings_queue q
        WHERE q.state IN ('pending', 'processing') AND q.target_kind = 'episodic'
          AND q.model_id = (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active)
          AND (only_agent_id IS NULL OR q.agent_id = only_agent_id)
        UNION ALL
        SELECT q.target_id, q.state FROM memory_system.embeddings_queue q
        WHERE q.state = 'dead' AND q.target_kind = 'episodic'
          AND q.model_id = (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active)
          AND (only_agent_id IS NULL OR q.agent_id = only_agent_id)
    ), classes AS (
        SELECT CASE WHEN u.state IS NOT NULL THEN u.state
                    WHEN e.embedding_sha256 = e.input_sha256 AND c.episode_id IS NOT NULL THEN 'searchable'
                    ELSE 'unaccounted' END AS class
        FROM nexus_memory.zep_episodic_memory e
        LEFT JOIN unfinished u ON u.target_id = e.episode_id
        LEFT JOIN nexus_memory.episode_chunks c ON c.episode_id = e.episode_id AND c.chunk_no = 0
            AND c.model_id = (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active)
            AND (only_agent_id IS NULL OR c.agent_id = only_agent_id)
        WHERE only_agent_id IS NULL OR e.agent_id = only_agent_id
    ), live AS (
        SELECT count(*) FILTER (WHERE class = 'searchable') AS searchable, count(*) FILTER (WHERE class = 'pending') AS pending,
               count(*) FILTER (WHERE class = 'processing') AS processing, count(*) FILTER (WHERE class = 'dead') AS dead
        FROM classes
    )
    SELECT e.accepted, l.searchable, l.pending, l.processing, l.dead, e.deleted,
           e.accepted - (l.searchable + l.pending + l.processing + l.dead + e.deleted)
    FROM events e CROSS JOIN live l
$$;
