-- The turns named and the turns right before and after each of them in its session, each with its speaker, its time and its own
-- neighbours' ids; of the current agent. A turn without a session has no neighbours.
-- Two turns on each side say everything: the neighbours' own neighbours are the turn itself and the one behind.
CREATE FUNCTION nexus_memory.turns_of(ids uuid[])
RETURNS TABLE (episode_id uuid, session_id text, actor text, occurred_at timestamptz, previous_id uuid, following_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    agent text := memory_system.current_agent();
BEGIN
    RETURN QUERY
    WITH around AS MATERIALIZED (
        SELECT e.episode_id AS id,
               ARRAY(SELECT p.episode_id FROM nexus_memory.zep_episodic_memory p
                     WHERE p.agent_id = agent AND p.session_id = e.session_id AND (p."timestamp", p.seq) < (e."timestamp", e.seq)
                     ORDER BY p."timestamp" DESC, p.seq DESC LIMIT 2) AS before,
               ARRAY(SELECT n.episode_id FROM nexus_memory.zep_episodic_memory n
                     WHERE n.agent_id = agent AND n.session_id = e.session_id AND (n."timestamp", n.seq) > (e."timestamp", e.seq)
                     ORDER BY n."timestamp", n.seq LIMIT 2) AS after
        FROM nexus_memory.zep_episodic_memory e WHERE e.agent_id = agent AND e.episode_id = ANY (ids)
    ), turns AS (
        SELECT a.id, a.before[1] AS previous_id, a.after[1] AS following_id FROM around a
        UNION SELECT a.before[1], a.before[2], a.id FROM around a WHERE a.before[1] IS NOT NULL
        UNION SELECT a.after[1], a.id, a.after[2] FROM around a WHERE a.after[1] IS NOT NULL
    )
    SELECT e.episode_id, e.session_id, e.actor, e."timestamp", t.previous_id, t.following_id
    FROM turns t JOIN nexus_memory.zep_episodic_memory e ON e.episode_id = t.id WHERE e.agent_id = agent;
END $$;
