-- What the fifth revision adds, by name.
GRANT EXECUTE ON FUNCTION nexus_memory.search_semantic_by_vector(public.vector, text, integer, integer),
    nexus_memory.search_semantic_by_words(text, integer) TO nexus_app, nexus_ro;
GRANT EXECUTE ON FUNCTION memory_system.semantic_identity(text) TO nexus_app, nexus_worker;
