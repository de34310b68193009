-- Not for updates of the embedding columns alone: those are the worker's, and frequent.
CREATE TRIGGER guard_episode BEFORE UPDATE ON nexus_memory.zep_episodic_memory
    FOR EACH ROW WHEN (OLD.content IS DISTINCT FROM NEW.content OR OLD.actor IS DISTINCT FROM NEW.actor
        OR OLD.agent_id IS DISTINCT FROM NEW.agent_id OR OLD.episode_id IS DISTINCT FROM NEW.episode_id
        OR OLD.version IS DISTINCT FROM NEW.version OR OLD.receipt_nonce IS DISTINCT FROM NEW.receipt_nonce)
    EXECUTE FUNCTION nexus_memory.trigger_guard_episode();
