-- The turns of a session in order, for the context of an episode and for lists of one session.
CREATE INDEX ix_zep_episodic_memory_session ON nexus_memory.zep_episodic_memory (agent_id, session_id, "timestamp", seq)
    WHERE session_id IS NOT NULL;
