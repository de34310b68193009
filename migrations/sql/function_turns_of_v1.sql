-- The turns named and the turns right before and after each of them in its session, each with its speaker, its time and its own
-- neighbours' ids; of the current agent. A turn without a session has no neighbours.
CREATE FUNCTION nexus_memory.turns_of(ids uuid[])
RETURNS TABLE (episode_id uuid, session_id text, actor text, occurred_at timestamptz, previous_id uuid, following_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    agent text := memory_system.current_agent();
    wanted uuid[];
BEGIN
    SELECT array_agg(DISTINCT near.id) INTO wanted
    FROM nexus_memory.zep_episodic_memory e
    CROSS JOIN LATERAL (
        SELECT e.episode_id AS id
        UNION ALL (
            SELECT p.episode_id FROM nexus_memory.zep_episodic_memory p
            WHERE p.agent_id = agent AND p.session_id = e.session_id AND (p."timestamp", p.seq) < (e."timestamp", e.seq)
            ORDER BY p."timestamp" DESC, p.seq DESC LIMIT 1)
        UNION ALL (
            SELECT n.episode_id FROM nexus_memory.zep_episodic_memory n
            WHERE n.agent_id = agent AND n.session_id = e.session_id AND (n."timestamp", n.seq) > (e."timestamp", e.seq)
            ORDER BY n."timestamp", n.seq LIMIT 1)
    ) near
    WHERE e.agent_id = agent AND e.episode_id = ANY (ids);
    RETURN QUERY
    SELECT e.episode_id, e.session_id, e.actor, e."timestamp",
           (SELECT p.episode_id FROM nexus_memory.zep_episodic_memory p
            WHERE p.agent_id = agent AND p.session_id = e.session_id AND (p."timestamp", p.seq) < (e."timestamp", e.seq)
            ORDER BY p."timestamp" DESC, p.seq DESC LIMIT 1),
           (SELECT n.episode_id FROM nexus_memory.zep_episodic_memory n
            WHERE n.agent_id = agent AND n.session_id = e.session_id AND (n."timestamp", n.seq) > (e."timestamp", e.seq)
            ORDER BY n."timestamp", n.seq LIMIT 1)
    FROM nexus_memory.zep_episodic_memory e WHERE e.agent_id = agent AND e.episode_id = ANY (wanted);
END $$;
