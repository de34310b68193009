-- Every definer function belongs to a role that cannot log in. It needs CREATE on a schema just while it takes them over.
GRANT CREATE ON SCHEMA nexus_memory, memory_system TO nexus_definer;
ALTER FUNCTION nexus_memory.trigger_generate_embedding() OWNER TO nexus_definer;
ALTER FUNCTION nexus_memory.trigger_generate_embedding_row() OWNER TO nexus_definer;
ALTER FUNCTION nexus_memory.trigger_clear_queue() OWNER TO nexus_definer;
ALTER FUNCTION nexus_memory.trigger_semantic_embedding() OWNER TO nexus_definer;
ALTER FUNCTION nexus_memory.trigger_clear_semantic_queue() OWNER TO nexus_definer;
ALTER FUNCTION memory_system.trigger_record_acceptance() OWNER TO nexus_definer;
ALTER FUNCTION memory_system.record_edit(uuid) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.delete_episode(uuid) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.queue_counts(text) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.accounting_identity(text) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.totals(text) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.agent_totals(integer) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.enqueue_missing(integer) OWNER TO nexus_definer;
ALTER FUNCTION nexus_memory.search_by_vector(public.vector, smallint, integer, jsonb, integer) OWNER TO nexus_definer;
ALTER FUNCTION nexus_memory.search_by_words(text, integer, jsonb) OWNER TO nexus_definer;
ALTER FUNCTION nexus_memory.cosine_of(uuid[], public.vector, smallint) OWNER TO nexus_definer;
REVOKE CREATE ON SCHEMA nexus_memory, memory_system FROM nexus_definer;
