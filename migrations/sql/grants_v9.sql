-- What the tenth revision adds, by name.
GRANT SELECT ON nexus_memory.semantic_vectors TO nexus_app, nexus_ro, nexus_backup;
GRANT SELECT, INSERT, DELETE ON nexus_memory.semantic_vectors TO nexus_worker;
GRANT SELECT, DELETE ON nexus_memory.semantic_vectors TO nexus_definer;
GRANT EXECUTE ON FUNCTION nexus_memory.search_semantic_by_vector(public.vector, smallint, integer, integer) TO nexus_app, nexus_ro;
