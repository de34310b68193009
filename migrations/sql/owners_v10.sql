-- The definer needs CREATE on a schema just while it takes its functions over.
GRANT CREATE ON SCHEMA nexus_memory TO nexus_definer;
ALTER FUNCTION nexus_memory.turns_of(uuid[]) OWNER TO nexus_definer;
REVOKE CREATE ON SCHEMA nexus_memory FROM nexus_definer;
