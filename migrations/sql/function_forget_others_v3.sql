-- Deletes everything of the current agent but its episodes, up to `most` rows of each table, and returns how many went from each.
-- Read-only blocks too, if the caller says so: whether he may is for the service to know, which has asked before.
CREATE FUNCTION memory_system.forget_others(most integer)
RETURNS TABLE (semantic_memories bigint, working_contexts bigint, memory_blocks bigint, checkpoints bigint, projects bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    agent text := memory_system.current_agent();
    locked_memories uuid[];
    locked_contexts text[];
    locked_labels text[];
BEGIN
    -- Rows of a table are locked in the order of every other writer, and just those are deleted: what is written meanwhile would be met
    -- in another order. Names go by their code points, as a writer sorts them, whatever the database's order of words is. One forgets an
    -- agent at a time.
    PERFORM pg_advisory_xact_lock(hashtextextended('nexus forget ' || agent, 0));
    locked_memories := ARRAY(SELECT s.memory_id FROM nexus_memory.semantic_memories s WHERE s.memory_id IN (
        SELECT o.memory_id FROM nexus_memory.semantic_memories o WHERE o.agent_id = agent ORDER BY o.seq LIMIT most)
        ORDER BY s.memory_id FOR UPDATE);
    DELETE FROM nexus_memory.semantic_memories s WHERE s.memory_id = ANY (locked_memories);
    GET DIAGNOSTICS semantic_memories = ROW_COUNT;
    locked_contexts := ARRAY(SELECT w.context_id FROM nexus_memory.working_memory_contexts w WHERE w.agent_id = agent AND w.context_id IN (
        SELECT o.context_id FROM nexus_memory.working_memory_contexts o WHERE o.agent_id = agent ORDER BY o.seq LIMIT most)
        ORDER BY w.context_id COLLATE "C" FOR UPDATE);
    DELETE FROM nexus_memory.working_memory_contexts w WHERE w.agent_id = agent AND w.context_id = ANY (locked_contexts);
    GET DIAGNOSTICS working_contexts = ROW_COUNT;
    locked_labels := ARRAY(SELECT b.label FROM consciousness.memory_blocks b WHERE b.agent_id = agent ORDER BY b.label COLLATE "C" FOR UPDATE);
    UPDATE consciousness.memory_blocks b SET read_only = false WHERE b.agent_id = agent AND b.label = ANY (locked_labels) AND b.read_only;
    DELETE FROM consciousness.memory_blocks b WHERE b.agent_id = agent AND b.label = ANY (locked_labels);
    GET DIAGNOSTICS memory_blocks = ROW_COUNT;
    -- A stored checkpoint is never changed, so nobody else holds one: this waits for none.
    DELETE FROM consciousness.consciousness_checkpoints WHERE checkpoint_id IN (
        SELECT k.checkpoint_id FROM consciousness.consciousness_checkpoints k WHERE k.agent_id = agent LIMIT most);
    GET DIAGNOSTICS checkpoints = ROW_COUNT;
    DELETE FROM nexus_memory.projects p WHERE p.agent_id = agent
        AND NOT EXISTS (SELECT 1 FROM nexus_memory.zep_episodic_memory e WHERE e.agent_id = agent AND e.project_id = p.project_id);
    GET DIAGNOSTICS projects = ROW_COUNT;
    DELETE FROM memory_system.agent_models m WHERE m.agent_id = agent;
    RETURN NEXT;
END $$;
