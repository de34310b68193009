CREATE TRIGGER auto_generate_embedding AFTER INSERT ON nexus_memory.zep_episodic_memory
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION nexus_memory.trigger_generate_embedding();
