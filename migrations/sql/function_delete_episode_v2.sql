-- Deletes one episode of the current agent from every table, and returns its tombstone: the ledger keeps each leaf and the
-- hash of the idempotency key, and forgets the nonce and the hashes of content and attributes. Empty when the agent has no such episode.
CREATE FUNCTION memory_system.delete_episode(deleted_episode_id uuid)
RETURNS TABLE (episode_id uuid, seq bigint, version integer, leaf bytea, deleted_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    agent text := memory_system.current_agent();
    gone record;
BEGIN
    DELETE FROM nexus_memory.zep_episodic_memory e
    WHERE e.episode_id = deleted_episode_id AND e.agent_id = agent
    RETURNING e.episode_id, e.seq, e.version, e.receipt_nonce, e.content_sha256, e.idempotency_key INTO gone;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE memory_system.ledger l SET content_sha256 = NULL, nonce = NULL, attributes_sha256 = NULL WHERE l.episode_id = gone.episode_id;
    RETURN QUERY
    INSERT INTO memory_system.ledger AS l (episode_id, seq, agent_id, version, event, leaf, idempotency_key_sha256)
    VALUES (gone.episode_id, gone.seq, agent, gone.version, 'deleted',
            memory_system.ledger_leaf(gone.receipt_nonce, gone.episode_id, gone.version, gone.content_sha256),
            sha256(convert_to(gone.idempotency_key, 'UTF8')))
    RETURNING l.episode_id, l.seq, l.version, l.leaf, l.at;
END $$;
