"""The whole stack as a user starts it: one for all tests of this folder, stopped after the last of them, for it would slow the others."""
