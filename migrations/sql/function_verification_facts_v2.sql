-- What a verdict on each claim rests on, as booleans and states: no hash and no content of an episode leaves this function.
-- A claim is {episode_id, seq, version, content_sha256, nonce}; without the last two only the stored sides are compared.
-- One row a claim, in their order; all from one snapshot.
CREATE FUNCTION memory_system.verification_facts(claims jsonb, only_agent_id text DEFAULT NULL)
RETURNS TABLE (episode_id uuid, seq bigint, version integer, is_accepted boolean, receipt_matches boolean, is_deleted boolean,
               row_exists boolean, row_version integer, row_matches_ledger boolean, queue_state text, has_vector boolean,
               is_vector_intact boolean)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT c.episode_id, c.seq, c.version,
           l.ledger_seq IS NOT NULL,
           l.ledger_seq IS NOT NULL AND l.seq = c.seq AND (c.nonce IS NULL
               OR l.leaf = memory_system.ledger_leaf(c.nonce, c.episode_id, c.version, decode(c.content_sha256, 'hex'))),
           EXISTS (SELECT 1 FROM memory_system.ledger d WHERE d.episode_id = c.episode_id AND d.event = 'deleted'
                   AND (only_agent_id IS NULL OR d.agent_id = only_agent_id)),
           e.episode_id IS NOT NULL,
           e.version,
           EXISTS (SELECT 1 FROM memory_system.ledger n WHERE n.episode_id = e.episode_id AND n.version = e.version AND n.seq = e.seq
                   AND n.agent_id = e.agent_id AND n.event IN ('accepted', 'edited')
                   AND n.leaf = memory_system.ledger_leaf(e.receipt_nonce, e.episode_id, e.version, e.content_sha256)
                   AND (n.attributes_sha256 IS NULL OR n.attributes_sha256 =
    -- include part_attributes_v1
                   )),
           q.state,
           e.embedding_sha256 = e.input_sha256 AND v.is_intact IS NOT NULL,
           coalesce(v.is_intact, true)
    FROM ROWS FROM (jsonb_to_recordset(claims) AS (episode_id uuid, seq bigint, version integer, content_sha256 text, nonce uuid))
        WITH ORDINALITY AS c (episode_id, seq, version, content_sha256, nonce, position)
    LEFT JOIN LATERAL (
        SELECT a.ledger_seq, a.seq, a.leaf FROM memory_system.ledger a
        WHERE a.episode_id = c.episode_id AND a.version = c.version AND a.event IN ('accepted', 'edited')
          AND (only_agent_id IS NULL OR a.agent_id = only_agent_id)
        ORDER BY a.ledger_seq LIMIT 1
    ) l ON true
    LEFT JOIN nexus_memory.zep_episodic_memory e ON e.episode_id = c.episode_id AND (only_agent_id IS NULL OR e.agent_id = only_agent_id)
    LEFT JOIN memory_system.embedding_models m ON m.is_active
    LEFT JOIN memory_system.embeddings_queue q
        ON q.target_kind = 'episodic' AND q.target_id = e.episode_id AND q.model_id = m.model_id
    LEFT JOIN LATERAL (SELECT nexus_memory.chunks_are_intact(e.episode_id, e.agent_id, char_length(e.content), e.input_sha256, e.embedding,
        e.embedding_version, m) AS is_intact) v ON true
    ORDER BY c.position
$$;
