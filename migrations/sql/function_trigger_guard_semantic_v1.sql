-- BEFORE UPDATE of a semantic memory: new words void the vector and make a new version.
CREATE FUNCTION nexus_memory.trigger_guard_semantic() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.agent_id IS DISTINCT FROM OLD.agent_id OR NEW.memory_id IS DISTINCT FROM OLD.memory_id THEN
        RAISE EXCEPTION 'a semantic memory keeps its id and its agent' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.concept IS DISTINCT FROM OLD.concept OR NEW.definition IS DISTINCT FROM OLD.definition THEN
        NEW.embedding := NULL;
        NEW.embedding_version := NULL;
        NEW.embedding_sha256 := NULL;
        NEW.version := OLD.version + 1;
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END $$;
