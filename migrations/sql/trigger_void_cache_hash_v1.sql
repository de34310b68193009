CREATE TRIGGER void_cache_hash BEFORE UPDATE ON nexus_memory.working_memory_contexts
    FOR EACH ROW WHEN (OLD.active_content IS DISTINCT FROM NEW.active_content OR OLD.expires_at IS DISTINCT FROM NEW.expires_at
        OR OLD.priority IS DISTINCT FROM NEW.priority OR OLD.context_type IS DISTINCT FROM NEW.context_type
        OR OLD.session_id IS DISTINCT FROM NEW.session_id OR OLD.ttl_seconds IS DISTINCT FROM NEW.ttl_seconds)
    EXECUTE FUNCTION nexus_memory.trigger_void_cache_hash();
