-- The current agent's episodes nearest to a query vector, each by its best chunk; cosine in [-1, 1], greatest first.
-- An exact scan reads the agent's chunks, HNSW reads everybody's until it has met enough of the agent's: the cheaper one is taken.
-- A tuple of the index costs about as much as four of the scan, so HNSW pays from held * held = 8 * most * all chunks, and never below
-- 10,000. It runs as an iterative scan, so that a filter does not starve it; should it still return fewer than asked for, the exact
-- scan answers: a filtered search never silently returns too few. `exact_below` puts a number in the place of that reckoning.
-- A chunk counts only while its input hash is that of the episode now, so a stale vector cannot be served. In a join with a filter
-- that comparison stands in coalesce() to hide it from the planner, which would take the two equalities of the join for independent,
-- expect one row and never use HNSW. A filter that leaves few rows is met through its own index.
CREATE FUNCTION nexus_memory.search_by_vector(query public.vector, model smallint, most integer, filters jsonb, exact_below integer DEFAULT NULL)
RETURNS TABLE (episode_id uuid, cosine double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    agent text := memory_system.current_agent();
    dimensions integer := vector_dims(query);
    index_from integer := coalesce(exact_below, greatest(10000, sqrt(8.0 * most * (
        SELECT greatest(t.reltuples, 0) FROM pg_class t WHERE t.oid = 'nexus_memory.episode_chunks'::regclass))))::integer;
    held bigint;
    source text;
    found_rows bigint;
BEGIN
    SELECT count(*) INTO held FROM (
        SELECT 1 FROM nexus_memory.episode_chunks c WHERE c.agent_id = agent AND c.model_id = model LIMIT index_from) sample;
    source := format(
        'FROM nexus_memory.episode_chunks c JOIN nexus_memory.zep_episodic_memory e ON e.episode_id = c.episode_id'
        ' WHERE c.agent_id = $2 AND e.agent_id = $2 AND c.model_id = %s AND coalesce(c.input_sha256 = e.input_sha256, false) AND %s',
        model, nexus_memory.episode_filter());
    IF held >= index_from THEN
        PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', '200', true),
                set_config('hnsw.max_scan_tuples', '40000', true);
        RETURN QUERY EXECUTE format(
            'WITH nearest AS MATERIALIZED (SELECT c.episode_id, c.embedding::vector(%1$s) <=> $3 AS distance %2$s'
            ' ORDER BY c.embedding::vector(%1$s) <=> $3 LIMIT $4 * 2)'
            ' SELECT n.episode_id, 1 - min(n.distance) FROM nearest n GROUP BY n.episode_id ORDER BY 2 DESC, 1 LIMIT $4',
            dimensions, source) USING filters, agent, query, most;
        GET DIAGNOSTICS found_rows = ROW_COUNT;
        IF found_rows >= most THEN
            RETURN;
        END IF;
    ELSIF filters = '{}' THEN
        -- Without a filter only the nearest chunks need their episode. `+ 0` keeps the planner from HNSW.
        RETURN QUERY EXECUTE format(
            'WITH nearest AS MATERIALIZED (SELECT c.episode_id, c.input_sha256, (c.embedding::vector(%s) <=> $2) + 0 AS distance'
            ' FROM nexus_memory.episode_chunks c WHERE c.agent_id = $1 AND c.model_id = %s ORDER BY 3 LIMIT $3 * 2)'
            ' SELECT n.episode_id, 1 - min(n.distance) FROM nearest n JOIN nexus_memory.zep_episodic_memory e ON e.episode_id = n.episode_id'
            ' WHERE e.agent_id = $1 AND e.input_sha256 = n.input_sha256 GROUP BY n.episode_id ORDER BY 2 DESC, 1 LIMIT $3',
            dimensions, model) USING agent, query, most;
        GET DIAGNOSTICS found_rows = ROW_COUNT;
        IF found_rows >= most OR held <= 2 * most THEN
            RETURN;
        END IF;
    END IF;
    -- After a short answer the same episodes come again from the scan of everything; the caller keeps the best of each.
    RETURN QUERY EXECUTE format(
        'SELECT c.episode_id, 1 - min(c.embedding::vector(%s) <=> $3) AS cosine %s GROUP BY c.episode_id ORDER BY 2 DESC, 1 LIMIT $4',
        dimensions, source) USING filters, agent, query, most;
END $$;
