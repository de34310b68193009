-- Forgetting an agent locks its working memories in order before it deletes them, which takes the right to change a column.
GRANT UPDATE (updated_at) ON nexus_memory.working_memory_contexts TO nexus_definer;
