-- The service and readers see the current agent's rows only; unset or empty, they see none. Workers and the definer's
-- functions see all rows; what they may do to them is a matter of grants.
ALTER TABLE consciousness.memory_blocks ENABLE ROW LEVEL SECURITY;
ALTER TABLE consciousness.memory_blocks FORCE ROW LEVEL SECURITY;
CREATE POLICY agent_isolation ON consciousness.memory_blocks TO nexus_app, nexus_ro
    USING (agent_id = nullif(current_setting('app.current_agent_id', true), ''))
    WITH CHECK (agent_id = nullif(current_setting('app.current_agent_id', true), ''));
CREATE POLICY worker_access ON consciousness.memory_blocks TO nexus_worker USING (true) WITH CHECK (true);
CREATE POLICY definer_access ON consciousness.memory_blocks TO nexus_definer USING (true) WITH CHECK (true);
