-- Appends the event of an edit that the same transaction made. An edit made behind the service's back has no event
-- and shows as altered. Returns true when there was a new version to record. What else changed is note_attributes' to say: until then
-- the new version has the attributes of the one before.
CREATE FUNCTION memory_system.record_edit(edited_episode_id uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    agent text := memory_system.current_agent();
BEGIN
    INSERT INTO memory_system.ledger (episode_id, seq, agent_id, version, event, leaf, content_sha256, nonce, attributes_sha256)
    SELECT e.episode_id, e.seq, e.agent_id, e.version, 'edited',
           memory_system.ledger_leaf(e.receipt_nonce, e.episode_id, e.version, e.content_sha256), e.content_sha256, e.receipt_nonce,
           (SELECT l.attributes_sha256 FROM memory_system.ledger l
            WHERE l.episode_id = e.episode_id AND l.version < e.version AND l.event IN ('accepted', 'edited')
            ORDER BY l.version DESC, l.ledger_seq DESC LIMIT 1)
    FROM nexus_memory.zep_episodic_memory e
    WHERE e.episode_id = edited_episode_id AND e.agent_id = agent
      AND e.xmin = pg_current_xact_id()::xid
      AND NOT EXISTS (SELECT 1 FROM memory_system.ledger l WHERE l.episode_id = e.episode_id AND l.version = e.version);
    RETURN FOUND;
END $$;
