-- The definer needs CREATE on a schema just while it takes its functions over.
GRANT CREATE ON SCHEMA memory_system TO nexus_definer;
ALTER FUNCTION memory_system.ledger_position() OWNER TO nexus_definer;
ALTER FUNCTION memory_system.ledger_entries(bigint, bigint) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.add_ledger_head(bigint, bigint, bigint, integer, bytea, bytea, bytea, bytea, bytea, timestamptz) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.ledger_entry_of(uuid, integer, text) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.last_seq() OWNER TO nexus_definer;
REVOKE CREATE ON SCHEMA memory_system FROM nexus_definer;
