"""A stack that Prometheus scrapes: one for all tests of this folder, which run before the stack of the others is there."""
