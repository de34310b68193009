CREATE TRIGGER auto_generate_embedding AFTER INSERT ON nexus_memory.semantic_memories
    FOR EACH ROW EXECUTE FUNCTION nexus_memory.trigger_semantic_embedding();
CREATE TRIGGER auto_update_embedding AFTER UPDATE ON nexus_memory.semantic_memories
    FOR EACH ROW WHEN (OLD.concept IS DISTINCT FROM NEW.concept OR OLD.definition IS DISTINCT FROM NEW.definition)
    EXECUTE FUNCTION nexus_memory.trigger_semantic_embedding();
CREATE TRIGGER auto_clear_queue AFTER DELETE ON nexus_memory.semantic_memories
    FOR EACH ROW EXECUTE FUNCTION nexus_memory.trigger_clear_semantic_queue();
CREATE TRIGGER guard_semantic BEFORE UPDATE ON nexus_memory.semantic_memories
    FOR EACH ROW EXECUTE FUNCTION nexus_memory.trigger_guard_semantic();
