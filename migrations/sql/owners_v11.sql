-- The definer needs CREATE on a schema just while it takes its functions over.
GRANT CREATE ON SCHEMA memory_system TO nexus_definer;
ALTER FUNCTION memory_system.note_attributes(uuid) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.attributes_are_noted(uuid) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.claims_of_ledger(bigint, integer) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.claims_of_episodes(bigint, integer) OWNER TO nexus_definer;
REVOKE CREATE ON SCHEMA memory_system FROM nexus_definer;
