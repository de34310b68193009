-- BEFORE UPDATE of a working memory: what Redis holds is no longer what is stored, until the writer says so again.
CREATE FUNCTION nexus_memory.trigger_void_cache_hash() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.cache_sha1 := NULL;
    NEW.updated_at := now();
    RETURN NEW;
END $$;
