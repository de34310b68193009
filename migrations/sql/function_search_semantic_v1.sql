-- The current agent's semantic memories nearest to a query vector; cosine in [-1, 1], greatest first. Few are scanned exactly; many go
-- through HNSW with an iterative scan, and should the index return fewer than asked for, the exact scan answers. A memory whose vector
-- is of another model, or not of its present words, is left out.
CREATE FUNCTION nexus_memory.search_semantic_by_vector(query public.vector, model_version text, most integer, exact_below integer DEFAULT 10000)
RETURNS TABLE (memory_id uuid, cosine double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    agent text := memory_system.current_agent();
    held bigint;
    found_rows bigint;
BEGIN
    SELECT count(*) INTO held FROM (SELECT 1 FROM nexus_memory.semantic_memories s WHERE s.agent_id = agent LIMIT exact_below) sample;
    IF held >= exact_below THEN
        PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', '200', true),
                set_config('hnsw.max_scan_tuples', '40000', true);
        RETURN QUERY
        SELECT s.memory_id, 1 - (s.embedding <=> query) FROM nexus_memory.semantic_memories s
        WHERE s.agent_id = agent AND s.embedding_version = model_version AND coalesce(s.embedding_sha256 = s.input_sha256, false)
        ORDER BY s.embedding <=> query LIMIT most;
        GET DIAGNOSTICS found_rows = ROW_COUNT;
        IF found_rows >= most THEN
            RETURN;
        END IF;
    END IF;
    -- After a short answer of the index the same memories come again; the caller keeps one of each.
    RETURN QUERY
    SELECT s.memory_id, 1 - (s.embedding <=> query) AS cosine FROM nexus_memory.semantic_memories s
    WHERE s.agent_id = agent AND s.embedding_version = model_version AND s.embedding_sha256 = s.input_sha256
    ORDER BY 2 DESC, 1 LIMIT most;
END $$;

-- The current agent's semantic memories that hold any word of the query, by BM25 as search_by_words computes it for episodes.
CREATE FUNCTION nexus_memory.search_semantic_by_words(query text, most integer)
RETURNS TABLE (memory_id uuid, bm25 double precision, coverage double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    agent text := memory_system.current_agent();
    any_word tsquery;
    all_words text[];
    all_forms text[];
    memories double precision;
BEGIN
    SELECT array_agg(w.word), array_agg(w.form),
           string_agg(DISTINCT '''' || replace(replace(w.form, '\', '\\'), '''', '''''') || '''', ' | ')::tsquery
    INTO all_words, all_forms, any_word
    FROM (SELECT q.word, unnest(q.forms) AS form FROM nexus_memory.query_words(query) q) w;
    IF any_word IS NULL THEN
        RETURN;
    END IF;
    SELECT greatest(count(*), 1) INTO memories FROM nexus_memory.semantic_memories s WHERE s.agent_id = agent;
    RETURN QUERY
    WITH candidates AS MATERIALIZED (
        SELECT s.memory_id, s.search_vector, length(s.search_vector)::double precision AS terms
        FROM nexus_memory.semantic_memories s
        WHERE s.agent_id = agent AND s.search_vector @@ any_word
        ORDER BY ts_rank(s.search_vector, any_word) DESC LIMIT 2000
    ), hits AS MATERIALIZED (
        SELECT c.memory_id, f.word, max(cardinality(t.positions))::double precision AS count_in_memory, min(c.terms) AS terms
        FROM candidates c CROSS JOIN LATERAL unnest(c.search_vector) t
        JOIN unnest(all_words, all_forms) f(word, form) ON f.form = t.lexeme
        GROUP BY c.memory_id, f.word
    ), weights AS (
        SELECT h.word, ln(1 + greatest(memories - count(*) + 0.5, 0.5) / (count(*) + 0.5)) AS idf FROM hits h GROUP BY h.word
    ), unseen AS (
        SELECT count(*) * ln(1 + (memories + 0.5) / 0.5) AS idf
        FROM (SELECT DISTINCT f.word FROM unnest(all_words) f(word) EXCEPT SELECT w.word FROM weights w) u
    ), scale AS (
        SELECT (SELECT sum(w.idf) FROM weights w) + (SELECT u.idf FROM unseen u) AS all_idf,
               (SELECT avg(c.terms) FROM candidates c) AS mean_terms
    )
    SELECT h.memory_id,
           sum(w.idf * h.count_in_memory * 2.2 / (h.count_in_memory + 1.2 * (0.25 + 0.75 * h.terms / s.mean_terms)))::double precision,
           (sum(w.idf) / min(s.all_idf))::double precision
    FROM hits h JOIN weights w ON w.word = h.word CROSS JOIN scale s
    GROUP BY h.memory_id ORDER BY 2 DESC, 1 LIMIT most;
END $$;
