-- BEFORE UPDATE: keeps the derived columns true. New input voids the vector; new content is a new version with a
-- receipt of its own; whose episode it is never changes.
CREATE FUNCTION nexus_memory.trigger_guard_episode() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.agent_id IS DISTINCT FROM OLD.agent_id OR NEW.episode_id IS DISTINCT FROM OLD.episode_id THEN
        RAISE EXCEPTION 'an episode keeps its id and its agent' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.content IS DISTINCT FROM OLD.content OR NEW.actor IS DISTINCT FROM OLD.actor THEN
        NEW.embedding := NULL;
        NEW.embedding_version := NULL;
        NEW.embedding_sha256 := NULL;
        NEW.updated_at := now();
    END IF;
    IF NEW.content IS DISTINCT FROM OLD.content THEN
        NEW.version := OLD.version + 1;
        NEW.receipt_nonce := gen_random_uuid();
    ELSE
        NEW.version := OLD.version;
        NEW.receipt_nonce := OLD.receipt_nonce;
    END IF;
    RETURN NEW;
END $$;
