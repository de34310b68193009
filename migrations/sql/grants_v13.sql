-- What the seventeenth revision adds, by name.
GRANT SELECT ON memory_system.done_tallies, memory_system.dead_tallies TO nexus_app, nexus_ro, nexus_backup;
GRANT SELECT, INSERT, UPDATE ON memory_system.done_tallies, memory_system.dead_tallies TO nexus_worker;
