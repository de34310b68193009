-- Ids of the current agent's episodes that pass the filters, by (timestamp, seq): newest or oldest first, beginning after a position.
-- A definer function, because the filters' operators are not leakproof: under row security they would get no GIN index.
CREATE FUNCTION nexus_memory.list_episodes(filters jsonb, newest_first boolean, after_at timestamptz, after_seq bigint, most integer)
RETURNS SETOF uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    agent text := memory_system.current_agent();
    direction text := CASE WHEN newest_first THEN 'DESC' ELSE 'ASC' END;
    beyond text := CASE WHEN newest_first THEN '<' ELSE '>' END;
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT e.episode_id FROM nexus_memory.zep_episodic_memory e WHERE e.agent_id = $2 AND %1$s %2$s'
        ' ORDER BY e."timestamp" %3$s, e.seq %3$s LIMIT $5',
        nexus_memory.episode_filter(),
        CASE WHEN after_seq IS NULL THEN '' ELSE format('AND (e."timestamp", e.seq) %s ($3, $4)', beyond) END,
        direction) USING filters, agent, after_at, after_seq, most;
END $$;
