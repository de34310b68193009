-- How far the ledger has come: the last number that was given out, a transaction younger than all that may have taken one of those
-- numbers, and the oldest one that is still running. A range whose numbers were all given out before some moment is settled once every
-- transaction of that moment has ended; all that is missing in it then stays missing. A transaction has its id before it takes a number,
-- because the row that it writes to the ledger follows from one that it wrote already; so the id that is taken here, after the number was
-- read, is younger than any of theirs. (A snapshot's xmax would not do: it follows the last transaction that has ended, and one that is
-- still running may have that very id.)
CREATE FUNCTION memory_system.ledger_position(OUT last_ledger_seq bigint, OUT next_xid xid8, OUT oldest_xid xid8, OUT oldest_open_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    last_ledger_seq := coalesce((SELECT s.last_value FROM pg_sequences s
                                 WHERE s.schemaname = 'memory_system' AND s.sequencename = 'ledger_ledger_seq_seq'), 0);
    next_xid := (pg_current_xact_id()::text::numeric + 1)::text::xid8;
    oldest_xid := pg_snapshot_xmin(pg_current_snapshot());
    oldest_open_at := (SELECT l.at FROM memory_system.ledger l
                       WHERE l.ledger_seq > coalesce((SELECT max(h.last_ledger_seq) FROM memory_system.ledger_heads h), 0)
                       ORDER BY l.ledger_seq LIMIT 1);
END $$;
