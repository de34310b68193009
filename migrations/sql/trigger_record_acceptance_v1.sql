CREATE TRIGGER record_acceptance AFTER INSERT ON nexus_memory.zep_episodic_memory
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION memory_system.trigger_record_acceptance();
