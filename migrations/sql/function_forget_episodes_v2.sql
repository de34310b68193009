-- Deletes up to `most` of the current agent's episodes from every table, oldest first, each with a tombstone as delete_episode leaves,
-- and returns how many. Vectors go by cascade, queue rows by trigger.
CREATE FUNCTION memory_system.forget_episodes(most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    agent text := memory_system.current_agent();
    forgotten bigint;
    oldest uuid[];
BEGIN
    -- The rows are locked in the order of every other writer before they are deleted, and one forgets an agent at a time.
    PERFORM pg_advisory_xact_lock(hashtextextended('nexus forget ' || agent, 0));
    oldest := ARRAY(SELECT o.episode_id FROM nexus_memory.zep_episodic_memory o WHERE o.agent_id = agent ORDER BY o.seq LIMIT most);
    PERFORM 1 FROM nexus_memory.zep_episodic_memory e WHERE e.episode_id = ANY (oldest) ORDER BY e.episode_id FOR UPDATE;
    WITH gone AS (
        DELETE FROM nexus_memory.zep_episodic_memory e
        WHERE e.agent_id = agent AND e.episode_id = ANY (oldest)
        RETURNING e.episode_id, e.seq, e.version, e.receipt_nonce, e.content_sha256, e.idempotency_key
    ), erased AS (
        UPDATE memory_system.ledger l SET content_sha256 = NULL, nonce = NULL, attributes_sha256 = NULL FROM gone g WHERE l.episode_id = g.episode_id
    )
    INSERT INTO memory_system.ledger (episode_id, seq, agent_id, version, event, leaf, idempotency_key_sha256)
    SELECT g.episode_id, g.seq, agent, g.version, 'deleted',
           memory_system.ledger_leaf(g.receipt_nonce, g.episode_id, g.version, g.content_sha256),
           sha256(convert_to(g.idempotency_key, 'UTF8'))
    FROM gone g ORDER BY g.seq;
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END $$;
