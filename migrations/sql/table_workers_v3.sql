-- Texts differ in length by a factor of ten thousand, so episodes a second say little of how long others will take.
ALTER TABLE memory_system.workers ADD COLUMN chars_per_second double precision;
