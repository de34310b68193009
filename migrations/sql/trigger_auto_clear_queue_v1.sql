CREATE TRIGGER auto_clear_queue AFTER DELETE ON nexus_memory.zep_episodic_memory
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION nexus_memory.trigger_clear_queue();
