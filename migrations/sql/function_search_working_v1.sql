-- The current agent's live working memories that hold any word of the query; `coverage` is the share of the query's words that it
-- holds, in (0, 1], greatest first, the latest change first among equals.
CREATE FUNCTION nexus_memory.search_working(query text, most integer, only_session_id text DEFAULT NULL)
RETURNS TABLE (context_id text, coverage double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    agent text := memory_system.current_agent();
    any_word tsquery;
    words tsquery[];
BEGIN
    SELECT array_agg(w.forms), string_agg(w.forms::text, ' | ')::tsquery INTO words, any_word
    FROM (
        SELECT string_agg('''' || replace(replace(f.form, '\', '\\'), '''', '''''') || '''', ' | ')::tsquery AS forms
        FROM nexus_memory.query_words(query) q CROSS JOIN LATERAL unnest(q.forms) AS f (form) GROUP BY q.word
    ) w;
    IF any_word IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT w.context_id, (SELECT avg((w.search_vector @@ one.word)::int) FROM unnest(words) AS one (word))::double precision
    FROM nexus_memory.working_memory_contexts w
    WHERE w.agent_id = agent AND w.search_vector @@ any_word AND (w.expires_at IS NULL OR w.expires_at > now())
      AND (only_session_id IS NULL OR w.session_id = only_session_id)
    ORDER BY 2 DESC, w.updated_at DESC, 1 LIMIT most;
END $$;
