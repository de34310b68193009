-- The current agent's semantic memories nearest to a query vector of a model; cosine in [-1, 1], greatest first. Few are scanned
-- exactly; many go through HNSW with an iterative scan, and should the index return fewer than asked for, the exact scan answers. A
-- vector counts only while its input hash is that of the memory now. coalesce() hides that comparison from the planner: see search_by_vector.
CREATE FUNCTION nexus_memory.search_semantic_by_vector(query public.vector, model smallint, most integer, exact_below integer DEFAULT 10000)
RETURNS TABLE (memory_id uuid, cosine double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    agent text := memory_system.current_agent();
    dimensions integer := vector_dims(query);
    held bigint;
    source text;
    found_rows bigint;
BEGIN
    SELECT count(*) INTO held FROM (
        SELECT 1 FROM nexus_memory.semantic_vectors v WHERE v.agent_id = agent AND v.model_id = model LIMIT exact_below) sample;
    source := format(
        'FROM nexus_memory.semantic_vectors v JOIN nexus_memory.semantic_memories s ON s.memory_id = v.memory_id'
        ' WHERE v.agent_id = $1 AND s.agent_id = $1 AND v.model_id = %s AND coalesce(v.input_sha256 = s.input_sha256, false)', model);
    IF held >= exact_below THEN
        PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', '200', true),
                set_config('hnsw.max_scan_tuples', '40000', true);
        RETURN QUERY EXECUTE format(
            'SELECT v.memory_id, 1 - (v.embedding::vector(%1$s) <=> $2) %2$s ORDER BY v.embedding::vector(%1$s) <=> $2 LIMIT $3',
            dimensions, source) USING agent, query, most;
        GET DIAGNOSTICS found_rows = ROW_COUNT;
        IF found_rows >= most THEN
            RETURN;
        END IF;
    END IF;
    -- After a short answer of the index the same memories come again; the caller keeps one of each.
    RETURN QUERY EXECUTE format(
        'SELECT v.memory_id, 1 - (v.embedding::vector(%1$s) <=> $2) AS cosine %2$s ORDER BY 2 DESC, 1 LIMIT $3',
        dimensions, source) USING agent, query, most;
END $$;
