-- What the fourteenth revision adds, by name.
GRANT UPDATE (attributes_sha256) ON memory_system.ledger TO nexus_definer;
GRANT EXECUTE ON FUNCTION nexus_memory.attributes_sha256(text, text, text, timestamptz, double precision, text[], jsonb, jsonb, jsonb,
    text, text, timestamptz) TO nexus_definer;
GRANT EXECUTE ON FUNCTION
    nexus_memory.chunks_are_intact(uuid, text, integer, bytea, public.vector, text, memory_system.embedding_models),
    nexus_memory.semantic_vector_is_intact(uuid, text, bytea, public.vector, text, memory_system.embedding_models)
    TO nexus_worker, nexus_definer;
GRANT EXECUTE ON FUNCTION memory_system.note_attributes(uuid), memory_system.attributes_are_noted(uuid),
    memory_system.claims_of_ledger(bigint, integer),
    memory_system.claims_of_episodes(bigint, integer) TO nexus_app;
