-- Every episode whose seq lies in a range, once: those the ledger accepted, and those that stand in the table without an
-- acceptance. `version` is the version now, or the last one known. In order of seq.
CREATE FUNCTION memory_system.claims_of_range(first_seq bigint, last_seq bigint, only_agent_id text DEFAULT NULL)
RETURNS TABLE (episode_id uuid, seq bigint, version integer)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(e.episode_id, l.episode_id), coalesce(e.seq, l.seq), coalesce(e.version, l.version)
    FROM (
        SELECT l.episode_id, l.seq, max(l.version) AS version FROM memory_system.ledger l
        WHERE l.seq BETWEEN first_seq AND last_seq AND (only_agent_id IS NULL OR l.agent_id = only_agent_id)
        GROUP BY l.episode_id, l.seq
    ) l
    FULL JOIN (
        SELECT e.episode_id, e.seq, e.version FROM nexus_memory.zep_episodic_memory e
        WHERE e.seq BETWEEN first_seq AND last_seq AND (only_agent_id IS NULL OR e.agent_id = only_agent_id)
    ) e ON e.episode_id = l.episode_id
    ORDER BY 2
$$;
