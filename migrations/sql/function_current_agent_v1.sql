-- The agent this transaction acts for. A definer function asks it first, so that an unset or empty agent fails
-- instead of seeing nothing (or, worse, everything).
CREATE FUNCTION memory_system.current_agent() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    agent text := current_setting('app.current_agent_id', true);
BEGIN
    IF agent IS NULL OR agent = '' THEN
        RAISE EXCEPTION 'app.current_agent_id is not set' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN agent;
END $$;
