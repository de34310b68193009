-- The definer needs CREATE on a schema just while it takes its functions over.
GRANT CREATE ON SCHEMA nexus_memory TO nexus_definer;
ALTER FUNCTION nexus_memory.search_semantic_by_vector(public.vector, smallint, integer, integer) OWNER TO nexus_definer;
REVOKE CREATE ON SCHEMA nexus_memory FROM nexus_definer;
