"""The engine's TCP on virtual time: a worker's loop over memory ports, its hosts played by the tests."""
