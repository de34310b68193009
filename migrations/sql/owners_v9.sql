-- The definer needs CREATE on a schema just while it takes its functions over.
GRANT CREATE ON SCHEMA nexus_memory, memory_system TO nexus_definer;
ALTER FUNCTION nexus_memory.search_semantic_by_vector(public.vector, smallint, integer, integer) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.repair_semantic_vectors(uuid[]) OWNER TO nexus_definer;
REVOKE CREATE ON SCHEMA nexus_memory, memory_system FROM nexus_definer;
