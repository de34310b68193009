-- What the tenth revision adds, by name.
GRANT SELECT ON nexus_memory.semantic_vectors TO nexus_app, nexus_ro, nexus_backup;
GRANT SELECT, INSERT, DELETE ON nexus_memory.semantic_vectors TO nexus_worker;
GRANT SELECT, DELETE ON nexus_memory.semantic_vectors TO nexus_definer;
GRANT EXECUTE ON FUNCTION nexus_memory.search_semantic_by_vector(public.vector, smallint, integer, integer) TO nexus_app, nexus_ro;
GRANT EXECUTE ON FUNCTION memory_system.repair_semantic_vectors(uuid[]) TO nexus_worker;
-- FOR UPDATE needs the right to update something.
GRANT UPDATE (updated_at) ON nexus_memory.semantic_memories TO nexus_definer;
