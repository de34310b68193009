-- The current agent's episodes that hold any word of the query, by BM25 (k1 1.2, b 0.75) over the agent's episodes, greatest first.
-- A word's count in an episode is that of its most frequent form. `coverage` is the share of the query's idf that the episode holds.
-- Of an agent with up to 2,000 episodes every one that holds a word is scored. Of a larger one candidates are those that hold one of the
-- query's rarest words: so many of these as together are in about 600 episodes, at least one; 2,000 candidates at most. The other words
-- count in the candidates, but bring none. How frequent a word is, a sample tells: the first 8 episodes from each of 32 places spread
-- evenly over the agent's seq. When they bring less than half of what is asked for, as under a filter, up to 1,000 that hold only the
-- other words come after them. Of more than 50,000 episodes no more are counted: it would move every idf alike.
-- Without a filter, IS TRUE keeps the planner, which has no statistics of words here, from an index of all that a large agent has.
-- Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009).
CREATE FUNCTION nexus_memory.search_by_words(query text, most integer, filters jsonb)
RETURNS TABLE (episode_id uuid, bm25 double precision, coverage double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET max_parallel_workers_per_gather = 0
AS $$
DECLARE
    agent text := memory_system.current_agent();
    all_words text[];
    all_forms text[];
    any_word text;
    rare text;
    others text;
    episodes double precision;
    scoring text;
    found_rows bigint;
    left_out text[];
    shares double precision[];
BEGIN
    SELECT array_agg(f.word), array_agg(f.form), string_agg(DISTINCT f.quoted, ' | ') INTO all_words, all_forms, any_word
    FROM (SELECT w.word, w.form, '''' || replace(replace(w.form, '\', '\\'), '''', '''''') || '''' AS quoted
          FROM (SELECT q.word, unnest(q.forms) AS form FROM nexus_memory.query_words(query) q) w) f;
    IF all_words IS NULL THEN
        RETURN;
    END IF;
    SELECT greatest(count(*), 1) INTO episodes
    FROM (SELECT 1 FROM nexus_memory.zep_episodic_memory e WHERE e.agent_id = agent LIMIT 50000) counted;
    -- $3 the words that make a candidate, $10 those that it may not hold, $11 how many candidates there may be.
    scoring := format($query$
        WITH candidates AS MATERIALIZED (
            SELECT e.episode_id, e.search_vector, length(e.search_vector)::double precision AS terms FROM nexus_memory.zep_episodic_memory e
            WHERE %s AND e.search_vector @@ $3 AND ($10 IS NULL OR NOT e.search_vector @@ $10) AND %s LIMIT $11
        ), hits AS MATERIALIZED (
            SELECT c.episode_id, f.word, max(cardinality(t.positions))::double precision AS count_in_episode, min(c.terms) AS terms
            FROM candidates c CROSS JOIN LATERAL unnest(c.search_vector) t
            JOIN unnest($4, $5) f(word, form) ON f.form = t.lexeme
            GROUP BY c.episode_id, f.word
        ), frequencies AS (
            SELECT h.word, greatest(count(*), max(o.share) * $6) AS episodes FROM hits h LEFT JOIN unnest($8, $9) o(word, share) ON o.word = h.word
            GROUP BY h.word
        ), weights AS (
            SELECT f.word, ln(1 + greatest($6 - f.episodes + 0.5, 0.5) / (f.episodes + 0.5)) AS idf FROM frequencies f
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
    $query$, CASE WHEN episodes > 2000 AND filters = '{}' THEN '(e.agent_id = $2) IS TRUE' ELSE 'e.agent_id = $2' END,
        nexus_memory.episode_filter());
    IF episodes <= 2000 THEN
        RETURN QUERY EXECUTE scoring
        USING filters, agent, any_word::tsquery, all_words, all_forms, episodes, most, left_out, shares, NULL::tsquery, 2000;
        RETURN;
    END IF;
    WITH range AS MATERIALIZED (
        SELECT min(e.seq) AS low, max(e.seq) - min(e.seq) + 1 AS width FROM nexus_memory.zep_episodic_memory e WHERE e.agent_id = agent
    ), sample AS MATERIALIZED (
        SELECT DISTINCT s.seq, s.search_vector FROM range r CROSS JOIN generate_series(0, 31) n CROSS JOIN LATERAL (
            SELECT e.seq, e.search_vector FROM nexus_memory.zep_episodic_memory e
            WHERE e.agent_id = agent AND e.seq >= r.low + r.width * n / 32 ORDER BY e.seq LIMIT 8) s
    ), held AS (
        SELECT f.word, count(DISTINCT s.seq)::double precision AS sampled FROM sample s CROSS JOIN LATERAL unnest(s.search_vector) t
        JOIN unnest(all_words, all_forms) f(word, form) ON f.form = t.lexeme GROUP BY f.word
    ), share AS (
        SELECT f.word, coalesce(h.sampled, 0) / (SELECT count(*) FROM sample) AS share
        FROM (SELECT DISTINCT unnest(all_words) AS word) f LEFT JOIN held h USING (word)
    ), ordered AS (
        SELECT s.word, s.share, row_number() OVER (ORDER BY s.share, s.word) AS place, sum(s.share) OVER (ORDER BY s.share, s.word) AS together
        FROM share s
    )
    SELECT array_agg(o.word), array_agg(o.share) INTO left_out, shares FROM ordered o WHERE o.place > 1 AND o.together * episodes > 600;
    SELECT string_agg(DISTINCT f.quoted, ' | ') FILTER (WHERE f.word <> ALL (coalesce(left_out, '{}'))),
           string_agg(DISTINCT f.quoted, ' | ') FILTER (WHERE f.word = ANY (left_out)) INTO rare, others
    FROM (SELECT w.word, '''' || replace(replace(w.form, '\', '\\'), '''', '''''') || '''' AS quoted
          FROM unnest(all_words, all_forms) w(word, form)) f;
    RETURN QUERY EXECUTE scoring
    USING filters, agent, rare::tsquery, all_words, all_forms, episodes, most, left_out, shares, NULL::tsquery, 2000;
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    IF others IS NOT NULL AND found_rows < most / 2 THEN
        RETURN QUERY EXECUTE scoring
        USING filters, agent, others::tsquery, all_words, all_forms, episodes, most - found_rows, left_out, shares, rare::tsquery, 1000;
    END IF;
END $$;
