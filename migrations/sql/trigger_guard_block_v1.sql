CREATE TRIGGER guard_block BEFORE UPDATE OR DELETE ON consciousness.memory_blocks
    FOR EACH ROW EXECUTE FUNCTION consciousness.trigger_guard_block();
