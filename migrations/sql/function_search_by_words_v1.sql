-- The current agent's episodes that hold any word of the query, by BM25 (k1 1.2, b 0.75) over the agent's episodes, greatest first.
-- A word's count in an episode is that of its most frequent form. `coverage` is the share of the query's idf that the episode holds.
-- At most 2,000 candidates are scored: those that ts_rank puts first.
-- Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009).
CREATE FUNCTION nexus_memory.search_by_words(query text, most integer, filters jsonb)
RETURNS TABLE (episode_id uuid, bm25 double precision, coverage double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    agent text := memory_system.current_agent();
    any_word tsquery;
    all_words text[];
    all_forms text[];
    episodes double precision;
BEGIN
    SELECT array_agg(w.word), array_agg(w.form),
           string_agg(DISTINCT '''' || replace(replace(w.form, '\', '\\'), '''', '''''') || '''', ' | ')::tsquery
    INTO all_words, all_forms, any_word
    FROM (SELECT q.word, unnest(q.forms) AS form FROM nexus_memory.query_words(query) q) w;
    IF any_word IS NULL THEN
        RETURN;
    END IF;
    SELECT greatest(count(*), 1) INTO episodes FROM nexus_memory.zep_episodic_memory e WHERE e.agent_id = agent;
    RETURN QUERY EXECUTE format($query$
        WITH candidates AS MATERIALIZED (
            SELECT e.episode_id, e.search_vector, length(e.search_vector)::double precision AS terms
            FROM nexus_memory.zep_episodic_memory e
            WHERE e.agent_id = $2 AND e.search_vector @@ $3 AND %s
            ORDER BY ts_rank(e.search_vector, $3) DESC LIMIT 2000
        ), hits AS MATERIALIZED (
            SELECT c.episode_id, f.word, max(cardinality(t.positions))::double precision AS count_in_episode, min(c.terms) AS terms
            FROM candidates c CROSS JOIN LATERAL unnest(c.search_vector) t
            JOIN unnest($4, $5) f(word, form) ON f.form = t.lexeme
            GROUP BY c.episode_id, f.word
        ), weights AS (
            SELECT h.word, ln(1 + greatest($6 - count(*) + 0.5, 0.5) / (count(*) + 0.5)) AS idf FROM hits h GROUP BY h.word
        ), unseen AS (
            SELECT count(*) * ln(1 + ($6 + 0.5) / 0.5) AS idf
            FROM (SELECT DISTINCT f.word FROM unnest($4) f(word) EXCEPT SELECT w.word FROM weights w) u
        ), scale AS (
            SELECT (SELECT sum(w.idf) FROM weights w) + (SELECT u.idf FROM unseen u) AS all_idf,
                   (SELECT avg(c.terms) FROM candidates c) AS mean_terms
        )
        SELECT h.episode_id,
               sum(w.idf * h.count_in_episode * 2.2 / (h.count_in_episode + 1.2 * (0.25 + 0.75 * h.terms / s.mean_terms)))::double precision,
               (sum(w.idf) / min(s.all_idf))::double precision
        FROM hits h JOIN weights w ON w.word = h.word CROSS JOIN scale s
        GROUP BY h.episode_id ORDER BY 2 DESC, 1 LIMIT $7
    $query$, nexus_memory.episode_filter()) USING filters, agent, any_word, all_words, all_forms, episodes, most;
END $$;
