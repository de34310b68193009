-- The words of a working memory, names and values alike, so that a search can find it; and its order in lists.
ALTER TABLE nexus_memory.working_memory_contexts ADD COLUMN search_vector tsvector NOT NULL
    GENERATED ALWAYS AS (nexus_memory.episode_search_vector('en', NULL, active_content::text)) STORED;
CREATE INDEX ix_working_memory_contexts_search_vector ON nexus_memory.working_memory_contexts USING gin (search_vector);
CREATE INDEX ix_working_memory_contexts_agent_id_seq ON nexus_memory.working_memory_contexts (agent_id, seq);
