-- Whether the chunks that an episode has of its present input under a model are those that were computed: each of this agent and as its
-- hash says, none gone (numbers without a gap, and the last one ends where the content does), and together the copy on the episode's
-- row, which a vector that was put in with its own hash is not. Null when there is none.
CREATE FUNCTION nexus_memory.chunks_are_intact(of_episode_id uuid, of_agent_id text, content_chars integer, of_input_sha256 bytea,
    copy public.vector, copy_version text, of_model memory_system.embedding_models) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT bool_and(k.vector_sha256 = sha256(vector_send(k.embedding)) AND k.agent_id = of_agent_id)
        AND count(*) = max(k.chunk_no) + 1 AND max(k.char_end) = content_chars
        AND (copy_version IS DISTINCT FROM of_model.version OR copy IS NULL OR vector_dims(copy) <> of_model.dimensions
             OR cosine_distance(copy, sum(k.embedding
                 * array_fill((k.char_end - k.char_start)::real, ARRAY[vector_dims(k.embedding)])::vector)) < 0.001)
    FROM nexus_memory.episode_chunks k
    WHERE k.episode_id = of_episode_id AND k.model_id = of_model.model_id AND k.input_sha256 = of_input_sha256
$$;

-- The same of a semantic memory, which has one vector.
CREATE FUNCTION nexus_memory.semantic_vector_is_intact(of_memory_id uuid, of_agent_id text, of_input_sha256 bytea, copy public.vector,
    copy_version text, of_model memory_system.embedding_models) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT v.vector_sha256 = sha256(vector_send(v.embedding)) AND v.agent_id = of_agent_id
        AND (copy_version IS DISTINCT FROM of_model.version OR copy IS NULL OR vector_dims(copy) <> of_model.dimensions
             OR cosine_distance(copy, v.embedding) < 0.001)
    FROM nexus_memory.semantic_vectors v
    WHERE v.memory_id = of_memory_id AND v.model_id = of_model.model_id AND v.input_sha256 = of_input_sha256
$$;
