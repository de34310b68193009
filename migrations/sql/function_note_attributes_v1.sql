-- Notes the attributes of an episode that the same transaction changed, at the last version that the ledger has. Its caller has made sure that they were as noted before: what was
-- changed behind the service's back must not become right by the next legal change.
CREATE FUNCTION memory_system.note_attributes(changed_episode_id uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    agent text := memory_system.current_agent();
BEGIN
    UPDATE memory_system.ledger l SET attributes_sha256 =
    -- include part_attributes_v1
    FROM nexus_memory.zep_episodic_memory e
    WHERE e.episode_id = changed_episode_id AND e.agent_id = agent AND e.xmin = pg_current_xact_id()::xid
      AND l.ledger_seq = (SELECT k.ledger_seq FROM memory_system.ledger k
                          WHERE k.episode_id = e.episode_id AND k.agent_id = e.agent_id AND k.event IN ('accepted', 'edited')
                          ORDER BY k.version DESC, k.ledger_seq DESC LIMIT 1);
    RETURN FOUND;
END $$;

-- Whether the current agent's episode is as it was noted at the last version that the ledger has; true where nothing was noted.
-- Volatile, so that it sees what was committed while its caller waited for the row.
CREATE FUNCTION memory_system.attributes_are_noted(of_episode_id uuid) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((
        SELECT l.attributes_sha256 FROM memory_system.ledger l
        WHERE l.episode_id = e.episode_id AND l.agent_id = e.agent_id AND l.event IN ('accepted', 'edited')
        ORDER BY l.version DESC, l.ledger_seq DESC LIMIT 1) =
    -- include part_attributes_v1
        , true)
    FROM nexus_memory.zep_episodic_memory e WHERE e.episode_id = of_episode_id AND e.agent_id = memory_system.current_agent()
$$;
