-- The current agent's episodes that hold any word of the query, by BM25 (k1 1.2, b 0.75) over the agent's episodes, greatest first.
-- A word's count in an episode is that of its most frequent form. `coverage` is the share of the query's idf that the episode holds.
-- About 2,000 candidates are scored. In a large memory they are those that hold one of the query's rarest words, as many words as fit;
-- how common a word is there is guessed from the table's statistics. Should those hold fewer than asked for, all words count; should
-- they hold more than 2,000, ts_rank says which.
-- Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009).
CREATE FUNCTION nexus_memory.search_by_words(query text, most integer, filters jsonb)
RETURNS TABLE (episode_id uuid, bm25 double precision, coverage double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    agent text := memory_system.current_agent();
    any_word tsquery;
    rare_word tsquery;
    all_words text[];
    all_forms text[];
    common_words text[];
    common_counts double precision[];
    episodes double precision;
    held bigint;
BEGIN
    SELECT array_agg(w.word), array_agg(w.form) INTO all_words, all_forms
    FROM (SELECT q.word, unnest(q.forms) AS form FROM nexus_memory.query_words(query) q) w;
    IF all_words IS NULL THEN
        RETURN;
    END IF;
    SELECT greatest(count(*), 1) INTO episodes FROM nexus_memory.zep_episodic_memory e WHERE e.agent_id = agent;
    IF episodes > 2000 THEN
        WITH shares AS (
            SELECT m.lexeme, m.share
            FROM pg_stats s CROSS JOIN LATERAL unnest(s.most_common_elems::text::text[], s.most_common_elem_freqs) AS m (lexeme, share)
            WHERE s.schemaname = 'nexus_memory' AND s.tablename = 'zep_episodic_memory' AND s.attname = 'search_vector' AND m.lexeme IS NOT NULL
        ), guessed AS (
            SELECT f.word, episodes * max(coalesce(s.share, 0)) AS count
            FROM unnest(all_words, all_forms) AS f (word, form) LEFT JOIN shares s ON s.lexeme = f.form GROUP BY f.word
        ), rarest_first AS (
            SELECT g.word, g.count, sum(g.count) OVER (ORDER BY g.count, g.word) AS so_far, row_number() OVER (ORDER BY g.count, g.word) AS place
            FROM guessed g
        )
        SELECT array_agg(r.word), array_agg(r.count) INTO common_words, common_counts FROM rarest_first r WHERE r.so_far > 2000 AND r.place > 1;
    END IF;
    SELECT string_agg(DISTINCT q.form, ' | ')::tsquery, string_agg(DISTINCT q.form, ' | ') FILTER (WHERE q.word <> ALL (common_words))::tsquery
    INTO any_word, rare_word
    FROM (SELECT f.word, '''' || replace(replace(f.form, '\', '\\'), '''', '''''') || '''' AS form
          FROM unnest(all_words, all_forms) AS f (word, form)) q;
    IF common_words IS NOT NULL THEN
        EXECUTE format(
            'SELECT count(*) FROM (SELECT 1 FROM nexus_memory.zep_episodic_memory e'
            ' WHERE e.agent_id = $2 AND e.search_vector @@ $3 AND %s LIMIT $4) held', nexus_memory.episode_filter())
        INTO held USING filters, agent, rare_word, most;
        IF held >= most THEN
            any_word := rare_word;
        ELSE
            common_words := NULL;
            common_counts := NULL;
        END IF;
    END IF;
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
        ), holders AS (
            SELECT f.word, greatest((SELECT count(*) FROM hits h WHERE h.word = f.word), max(g.count)) AS count
            FROM unnest($4) f(word) LEFT JOIN unnest($8, $9) g(word, count) ON g.word = f.word GROUP BY f.word
        ), weights AS MATERIALIZED (
            SELECT h.word, ln(1 + greatest($6 - h.count + 0.5, 0.5) / (h.count + 0.5)) AS idf FROM holders h
        ), scale AS (
            SELECT (SELECT sum(w.idf) FROM weights w) AS all_idf, (SELECT avg(c.terms) FROM candidates c) AS mean_terms
        )
        SELECT h.episode_id,
               sum(w.idf * h.count_in_episode * 2.2 / (h.count_in_episode + 1.2 * (0.25 + 0.75 * h.terms / s.mean_terms)))::double precision,
               (sum(w.idf) / min(s.all_idf))::double precision
        FROM hits h JOIN weights w ON w.word = h.word CROSS JOIN scale s
        GROUP BY h.episode_id ORDER BY 2 DESC, 1 LIMIT $7
    $query$, nexus_memory.episode_filter())
    USING filters, agent, any_word, all_words, all_forms, episodes, most, common_words, common_counts;
END $$;
