nexus_memory.attributes_sha256(e.session_id, e.actor, e.action_type, e."timestamp", e.importance_score, e.tags, e.metadata,
        e.action_details, e.context_state, e.language, e.idempotency_key, e.created_at)
