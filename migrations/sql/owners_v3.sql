-- The definer needs CREATE on a schema just while it takes its functions over.
GRANT CREATE ON SCHEMA nexus_memory, memory_system TO nexus_definer;
ALTER FUNCTION nexus_memory.list_episodes(jsonb, boolean, timestamptz, bigint, integer) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.forget_episodes(integer) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.forget_others(integer) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.agent_rows() OWNER TO nexus_definer;
ALTER FUNCTION memory_system.known_episodes(uuid[]) OWNER TO nexus_definer;
REVOKE CREATE ON SCHEMA nexus_memory, memory_system FROM nexus_definer;
