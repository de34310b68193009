-- How far the ledger has come: the last number that was given out, the first transaction that had not begun by now, and the oldest one
-- that is still running. A range whose numbers were all given out before some moment is settled once every transaction of that moment
-- has ended; all that is missing in it then stays missing. A transaction has its id before it takes a number, because the row that it
-- writes to the ledger follows from one that it wrote already.
CREATE FUNCTION memory_system.ledger_position(OUT last_ledger_seq bigint, OUT next_xid xid8, OUT oldest_xid xid8, OUT oldest_open_at timestamptz)
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT s.last_value FROM pg_sequences s WHERE s.schemaname = 'memory_system' AND s.sequencename = 'ledger_ledger_seq_seq'), 0),
           pg_snapshot_xmax(pg_current_snapshot()), pg_snapshot_xmin(pg_current_snapshot()),
           (SELECT l.at FROM memory_system.ledger l
            WHERE l.ledger_seq > coalesce((SELECT max(h.last_ledger_seq) FROM memory_system.ledger_heads h), 0) ORDER BY l.ledger_seq LIMIT 1)
$$;

-- The entries of a range in order; numbers that were given out and never written are absent. A leaf is a hash over a nonce, so it tells
-- nobody anything of the episode.
CREATE FUNCTION memory_system.ledger_entries(first_seq bigint, last_seq bigint)
RETURNS TABLE (ledger_seq bigint, event text, leaf bytea)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT l.ledger_seq, l.event, l.leaf FROM memory_system.ledger l WHERE l.ledger_seq BETWEEN first_seq AND last_seq ORDER BY l.ledger_seq
$$;

-- Adds the next head; false when somebody else was faster, or what is given does not follow from the last one.
CREATE FUNCTION memory_system.add_ledger_head(range_no bigint, first_seq bigint, last_seq bigint, void_count integer, merkle_root bytea,
    tree_root bytea, previous_sha256 bytea, public_key bytea, signature bytea, sealed_at timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO memory_system.ledger_heads AS h (range_no, first_ledger_seq, last_ledger_seq, void_count, merkle_root, tree_root,
        previous_sha256, public_key, signature, sealed_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
    FROM (SELECT coalesce(max(h.range_no) + 1, 0) AS range_no, coalesce(max(h.last_ledger_seq) + 1, 1) AS first_seq
          FROM memory_system.ledger_heads h) next
    WHERE next.range_no = $1 AND next.first_seq = $2
    ON CONFLICT DO NOTHING;
    RETURN FOUND;
END $$;

-- Where the ledger has the acceptance or edit that made a version of an episode; empty when it has none, or it is another agent's.
CREATE FUNCTION memory_system.ledger_entry_of(wanted_episode_id uuid, wanted_version integer, only_agent_id text DEFAULT NULL)
RETURNS TABLE (ledger_seq bigint, event text, leaf bytea, seq bigint, version integer)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT l.ledger_seq, l.event, l.leaf, l.seq, l.version FROM memory_system.ledger l
    WHERE l.episode_id = wanted_episode_id AND l.event IN ('accepted', 'edited')
      AND (wanted_version IS NULL OR l.version = wanted_version) AND (only_agent_id IS NULL OR l.agent_id = only_agent_id)
    ORDER BY l.version DESC, l.ledger_seq LIMIT 1
$$;

-- The last number that an episode was given, stored since or not.
CREATE FUNCTION memory_system.last_seq() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT s.last_value FROM pg_sequences s
                     WHERE s.schemaname = 'nexus_memory' AND s.sequencename = 'zep_episodic_memory_seq_seq'), 0)
$$;
