-- What the twelfth revision adds, by name.
GRANT SELECT ON memory_system.recall_checks TO nexus_app, nexus_ro, nexus_backup;
GRANT SELECT, INSERT, DELETE ON memory_system.recall_checks TO nexus_worker;
