-- The words of a query with the forms in which an episode may hold each: as written and as English and Spanish stem.
-- Stop words of either language are left out, unless the query has nothing else. Ordered by word.
CREATE FUNCTION nexus_memory.query_words(query text) RETURNS TABLE (word text, forms text[])
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH words AS (
        SELECT w.lexeme AS word, ts_lexize('pg_catalog.english_stem', w.lexeme) AS english,
               ts_lexize('pg_catalog.spanish_stem', w.lexeme) AS spanish
        FROM unnest(to_tsvector('pg_catalog.simple', left(query, 20000))) w
    ), kept AS (
        SELECT w.*, cardinality(w.english) = 0 OR cardinality(w.spanish) = 0 AS is_stop_word FROM words w
    )
    SELECT k.word, ARRAY(SELECT DISTINCT f FROM unnest(ARRAY[k.word] || coalesce(k.english, '{}') || coalesce(k.spanish, '{}')) f ORDER BY f)
    FROM kept k
    WHERE NOT k.is_stop_word OR NOT EXISTS (SELECT 1 FROM kept WHERE NOT is_stop_word)
    ORDER BY k.word
$$;
