-- The current agent's episodes nearest to a query vector, each by its best chunk; cosine in [-1, 1], greatest first.
-- Three ways lead there, and the cheapest is taken. In units of a chunk that is read and compared, by far the most of an exact scan:
--   the scan of all of the agent's chunks costs what it holds;
--   a scan of the signs of their components, 48 bytes a chunk in an index, costs a fifth of that, and 5,000 for the 800 (or four times
--   what is asked for) that differ in the fewest signs, whose vectors are then compared;
--   HNSW reads everybody's chunks until it has met enough of the agent's, 20 for each.
-- So from 5,000 chunks on signs pay, and HNSW from held * held = 200 * most * all chunks on. `exact_below` puts a number in the place of
-- that reckoning, and leaves signs out.
-- Under a filter there are no signs to scan. HNSW pays from held * held = 8 * most * all chunks, and never below 10,000. It runs as an
-- iterative scan, so that a filter does not starve it; should any way return fewer than asked for, the exact scan answers: a search
-- never silently returns too few. Its list of 400 finds what one of 200 does not at the same cost, for about as many tuples are met
-- either way. Many searches run at once, so none takes parallel workers from the others.
-- A chunk counts only while its input hash is that of the episode now, so a stale vector cannot be served. In a join with a filter
-- that comparison stands in coalesce() to hide it from the planner, which would take the two equalities of the join for independent,
-- expect one row and never use HNSW. A filter that leaves few rows is met through its own index.
-- Source of the signs: binary quantization with re-ranking, as pgvector's documentation has it.
CREATE FUNCTION nexus_memory.search_by_vector(query public.vector, model smallint, most integer, filters jsonb, exact_below integer DEFAULT NULL)
RETURNS TABLE (episode_id uuid, cosine double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET max_parallel_workers_per_gather = 0
AS $$
DECLARE
    agent text := memory_system.current_agent();
    dimensions integer := vector_dims(query);
    all_chunks double precision := (SELECT greatest(t.reltuples, 0) FROM pg_class t WHERE t.oid = 'nexus_memory.episode_chunks'::regclass);
    index_from integer := coalesce(exact_below, CASE filters WHEN '{}' THEN greatest(5000, sqrt(200.0 * most * all_chunks))
                                                ELSE greatest(10000, sqrt(8.0 * most * all_chunks)) END)::integer;
    held bigint;
    nearest text;
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
        PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', '400', true),
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
        nearest := format('SELECT c.episode_id, c.input_sha256, (c.embedding::vector(%s) <=> $2) + 0 AS distance', dimensions);
        IF held >= 5000 AND exact_below IS NULL THEN
            nearest := format(
                'WITH alike AS MATERIALIZED (SELECT c.episode_id, c.chunk_no FROM nexus_memory.episode_chunks c'
                ' WHERE c.agent_id = $1 AND c.model_id = %1$s ORDER BY c.signs <~> binary_quantize($2) LIMIT greatest(800, $3 * 4)) %2$s'
                ' FROM alike a JOIN nexus_memory.episode_chunks c USING (episode_id, chunk_no) WHERE c.model_id = %1$s', model, nearest);
        ELSE
            nearest := format('%s FROM nexus_memory.episode_chunks c WHERE c.agent_id = $1 AND c.model_id = %s', nearest, model);
        END IF;
        RETURN QUERY EXECUTE format(
            'SELECT n.episode_id, 1 - min(n.distance) FROM (%s ORDER BY distance LIMIT $3 * 2) n'
            ' JOIN nexus_memory.zep_episodic_memory e ON e.episode_id = n.episode_id'
            ' WHERE e.agent_id = $1 AND e.input_sha256 = n.input_sha256 GROUP BY n.episode_id ORDER BY 2 DESC, 1 LIMIT $3',
            nearest) USING agent, query, most;
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
