"""The kernel's unit tests: modules whose suites run when they are loaded, and suites that run at boot."""
