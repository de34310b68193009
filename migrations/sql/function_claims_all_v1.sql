-- What to verify when everything is: first each acceptance in the ledger, by its number there; `version` is the one that is stored, or
-- the last one known. At most `most` of them, after `after_ledger_seq`. Numbers of episodes are not asked: a sequence can be set.
CREATE FUNCTION memory_system.claims_of_ledger(after_ledger_seq bigint, most integer)
RETURNS TABLE (ledger_seq bigint, episode_id uuid, seq bigint, version integer)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.ledger_seq, a.episode_id, a.seq,
           coalesce((SELECT e.version FROM nexus_memory.zep_episodic_memory e WHERE e.episode_id = a.episode_id),
                    (SELECT max(l.version) FROM memory_system.ledger l WHERE l.episode_id = a.episode_id))
    FROM memory_system.ledger a WHERE a.event = 'accepted' AND a.ledger_seq > after_ledger_seq ORDER BY a.ledger_seq LIMIT most
$$;

-- Then each stored episode, by seq, and whether the ledger accepted it under that number.
CREATE FUNCTION memory_system.claims_of_episodes(after_seq bigint, most integer)
RETURNS TABLE (episode_id uuid, seq bigint, version integer, is_accepted boolean)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.episode_id, e.seq, e.version,
           EXISTS (SELECT 1 FROM memory_system.ledger a WHERE a.episode_id = e.episode_id AND a.seq = e.seq AND a.event = 'accepted')
    FROM nexus_memory.zep_episodic_memory e WHERE e.seq > after_seq ORDER BY e.seq LIMIT most
$$;
