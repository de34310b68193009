CREATE TRIGGER auto_update_embedding AFTER UPDATE ON nexus_memory.zep_episodic_memory
    FOR EACH ROW WHEN (OLD.content IS DISTINCT FROM NEW.content OR OLD.actor IS DISTINCT FROM NEW.actor)
    EXECUTE FUNCTION nexus_memory.trigger_generate_embedding_row();
