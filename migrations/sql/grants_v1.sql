-- Who may do what. Nothing is granted to PUBLIC, TRUNCATE to nobody; the ledger and the queue are written by the definer's functions.
GRANT USAGE ON SCHEMA nexus_memory, memory_system, consciousness TO nexus_app, nexus_worker, nexus_ro, nexus_definer, nexus_backup;

-- API.
GRANT SELECT, INSERT, DELETE ON nexus_memory.projects TO nexus_app;
GRANT SELECT ON nexus_memory.zep_episodic_memory TO nexus_app;
-- By column: seq, version, nonce, vectors and times of record are the database's to give, also against plain SQL.
GRANT INSERT (episode_id, agent_id, session_id, actor, action_type, content, "timestamp", importance_score, tags, metadata,
    action_details, context_state, project_id, language, idempotency_key, request_sha256) ON nexus_memory.zep_episodic_memory TO nexus_app;
GRANT UPDATE (session_id, actor, action_type, content, "timestamp", importance_score, tags, metadata, action_details, context_state,
    project_id, language, updated_at) ON nexus_memory.zep_episodic_memory TO nexus_app;
GRANT SELECT ON nexus_memory.episode_chunks TO nexus_app;
GRANT SELECT, INSERT, DELETE ON nexus_memory.semantic_memories TO nexus_app;
GRANT UPDATE (concept, definition, relationships, confidence_score, source_episodes, language, updated_at)
    ON nexus_memory.semantic_memories TO nexus_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON nexus_memory.working_memory_contexts TO nexus_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON consciousness.memory_blocks TO nexus_app;
GRANT SELECT, INSERT ON consciousness.consciousness_checkpoints TO nexus_app;
GRANT SELECT ON memory_system.embeddings_queue, memory_system.ledger, memory_system.ledger_heads, memory_system.embedding_models,
    memory_system.workers, memory_system.reconciliation_runs, consciousness.distributed_consensus, consciousness.instance_network TO nexus_app;
GRANT SELECT, INSERT ON memory_system.api_keys TO nexus_app;
GRANT UPDATE (expires_at, revoked_at, last_used_at) ON memory_system.api_keys TO nexus_app;
GRANT SELECT, INSERT ON memory_system.audit_log TO nexus_app;

-- Dispatcher, workers, beat, reconciler.
GRANT SELECT ON nexus_memory.zep_episodic_memory, nexus_memory.semantic_memories, nexus_memory.working_memory_contexts,
    memory_system.embedding_models, memory_system.ledger_heads TO nexus_worker;
GRANT UPDATE (embedding, embedding_version, embedding_sha256) ON nexus_memory.zep_episodic_memory, nexus_memory.semantic_memories TO nexus_worker;
GRANT UPDATE (cache_sha1) ON nexus_memory.working_memory_contexts TO nexus_worker;
GRANT DELETE ON nexus_memory.working_memory_contexts TO nexus_worker;
GRANT SELECT, INSERT, DELETE ON nexus_memory.episode_chunks TO nexus_worker;
GRANT SELECT ON memory_system.embeddings_queue TO nexus_worker;
GRANT UPDATE (state, priority, due_at, claim_token, started_at, lease_until, retry_count, solo, last_error, processed_at)
    ON memory_system.embeddings_queue TO nexus_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON memory_system.workers, memory_system.beat_ticks TO nexus_worker;
GRANT SELECT, INSERT, UPDATE ON memory_system.reconciliation_runs TO nexus_worker;

-- Readers, under the same row security as the API; backups, which see every row and change none.
GRANT SELECT ON nexus_memory.projects, nexus_memory.zep_episodic_memory, nexus_memory.episode_chunks, nexus_memory.semantic_memories,
    nexus_memory.working_memory_contexts, memory_system.embeddings_queue, memory_system.embedding_models, memory_system.workers,
    memory_system.reconciliation_runs, consciousness.memory_blocks, consciousness.consciousness_checkpoints TO nexus_ro;
GRANT SELECT ON ALL TABLES IN SCHEMA nexus_memory, memory_system, consciousness TO nexus_backup;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA nexus_memory, memory_system, consciousness TO nexus_backup;

-- The definer: just what its functions do.
GRANT SELECT, DELETE ON nexus_memory.zep_episodic_memory TO nexus_definer;
GRANT SELECT, DELETE ON nexus_memory.episode_chunks TO nexus_definer;
GRANT SELECT ON nexus_memory.projects, nexus_memory.semantic_memories, memory_system.embedding_models TO nexus_definer;
GRANT SELECT, INSERT, UPDATE, DELETE ON memory_system.embeddings_queue TO nexus_definer;
GRANT SELECT, INSERT ON memory_system.ledger TO nexus_definer;
GRANT UPDATE (content_sha256, nonce) ON memory_system.ledger TO nexus_definer;

-- Functions: default privileges of the owner give PUBLIC none (bootstrap), so each is granted by name.
GRANT EXECUTE ON FUNCTION nexus_memory.content_sha256(text), nexus_memory.encoder_input_sha256(text, text),
    nexus_memory.search_config(text), nexus_memory.episode_search_vector(text, text, text)
    TO nexus_app, nexus_worker, nexus_definer;
GRANT EXECUTE ON FUNCTION nexus_memory.episode_filter(), nexus_memory.query_words(text), memory_system.lane(double precision),
    memory_system.ledger_leaf(uuid, uuid, integer, bytea) TO nexus_definer;
GRANT EXECUTE ON FUNCTION memory_system.ledger_leaf(uuid, uuid, integer, bytea) TO nexus_app;
GRANT EXECUTE ON FUNCTION memory_system.current_agent() TO nexus_app, nexus_ro, nexus_definer;
GRANT EXECUTE ON FUNCTION memory_system.record_edit(uuid), memory_system.delete_episode(uuid) TO nexus_app;
GRANT EXECUTE ON FUNCTION nexus_memory.search_by_vector(public.vector, smallint, integer, jsonb, integer),
    nexus_memory.search_by_words(text, integer, jsonb), nexus_memory.cosine_of(uuid[], public.vector, smallint) TO nexus_app, nexus_ro;
GRANT EXECUTE ON FUNCTION memory_system.queue_counts(text), memory_system.accounting_identity(text), memory_system.totals(text),
    memory_system.agent_totals(integer) TO nexus_app, nexus_worker;
GRANT EXECUTE ON FUNCTION memory_system.claims_of_range(bigint, bigint, text), memory_system.verification_facts(jsonb, text) TO nexus_app;
GRANT EXECUTE ON FUNCTION memory_system.enqueue_missing(integer) TO nexus_worker;
