-- The one place where the filters of a search become SQL: a predicate over `e` (an episode) and $1 (the filters as jsonb).
-- A filter that is absent is constant-folded away, because the callers plan with the values at hand.
CREATE FUNCTION nexus_memory.episode_filter() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN $predicate$
    (($1 ->> 'session_id') IS NULL OR e.session_id = ($1 ->> 'session_id'))
    AND (($1 ->> 'actor') IS NULL OR e.actor = ($1 ->> 'actor'))
    AND (($1 ->> 'action_type') IS NULL OR e.action_type = ($1 ->> 'action_type'))
    AND (($1 ->> 'min_importance') IS NULL OR e.importance_score >= ($1 ->> 'min_importance')::double precision)
    AND (($1 ->> 'occurred_after') IS NULL OR e."timestamp" >= ($1 ->> 'occurred_after')::timestamptz)
    AND (($1 ->> 'occurred_before') IS NULL OR e."timestamp" < ($1 ->> 'occurred_before')::timestamptz)
    AND (($1 -> 'metadata') IS NULL OR e.metadata @> ($1 -> 'metadata'))
    AND (($1 -> 'tags_any') IS NULL OR e.tags && ARRAY(SELECT jsonb_array_elements_text($1 -> 'tags_any')))
    AND (($1 -> 'tags_all') IS NULL OR e.tags @> ARRAY(SELECT jsonb_array_elements_text($1 -> 'tags_all')))
    AND (($1 ->> 'project') IS NULL OR e.project_id = (
        SELECT p.project_id FROM nexus_memory.projects p WHERE p.agent_id = e.agent_id AND p.name = ($1 ->> 'project')))
$predicate$;
