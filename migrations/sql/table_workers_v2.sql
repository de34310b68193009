-- Why a process that is alive takes no work: its encoder fails for every text. NULL when all is well; `slots` is 0 meanwhile.
ALTER TABLE memory_system.workers ADD COLUMN problem text;
