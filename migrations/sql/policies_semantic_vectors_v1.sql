-- The service and readers see the current agent's rows only; unset or empty, they see none. Workers and the definer's
-- functions see all rows; what they may do to them is a matter of grants.
ALTER TABLE nexus_memory.semantic_vectors ENABLE ROW LEVEL SECURITY;
ALTER TABLE nexus_memory.semantic_vectors FORCE ROW LEVEL SECURITY;
CREATE POLICY agent_isolation ON nexus_memory.semantic_vectors TO nexus_app, nexus_ro
    USING (agent_id = nullif(current_setting('app.current_agent_id', true), ''))
    WITH CHECK (agent_id = nullif(current_setting('app.current_agent_id', true), ''));
CREATE POLICY worker_access ON nexus_memory.semantic_vectors TO nexus_worker USING (true) WITH CHECK (true);
CREATE POLICY definer_access ON nexus_memory.semantic_vectors TO nexus_definer USING (true) WITH CHECK (true);
