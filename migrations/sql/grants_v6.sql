-- What the sixth revision adds, by name.
GRANT SELECT ON memory_system.ledger_heads TO nexus_definer;
GRANT INSERT ON memory_system.ledger_heads TO nexus_definer;
GRANT SELECT ON SEQUENCE memory_system.ledger_ledger_seq_seq, nexus_memory.zep_episodic_memory_seq_seq TO nexus_definer;
GRANT EXECUTE ON FUNCTION memory_system.ledger_position(), memory_system.ledger_entries(bigint, bigint) TO nexus_app, nexus_worker;
GRANT EXECUTE ON FUNCTION memory_system.add_ledger_head(bigint, bigint, bigint, integer, bytea, bytea, bytea, bytea, bytea, timestamptz) TO nexus_worker;
GRANT EXECUTE ON FUNCTION memory_system.ledger_entry_of(uuid, integer, text), memory_system.last_seq() TO nexus_app;
