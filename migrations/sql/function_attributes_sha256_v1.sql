-- The hash of what an episode holds beside its content, in one form whatever the session's settings are: moments as seconds since 1970,
-- the number by its bits, documents as
-- PostgreSQL prints them. The project is left out: it may be deleted, and the episode stays as it is.
CREATE FUNCTION nexus_memory.attributes_sha256(session_id text, actor text, action_type text, "timestamp" timestamptz,
    importance_score double precision, tags text[], metadata jsonb, action_details jsonb, context_state jsonb, language text,
    idempotency_key text, created_at timestamptz) RETURNS bytea
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT sha256(convert_to(jsonb_build_array(session_id, actor, action_type, extract(epoch FROM "timestamp"),
        encode(float8send(importance_score), 'hex'), tags,
        metadata, action_details, context_state, language, idempotency_key, extract(epoch FROM created_at))::text, 'UTF8'))
$$;
