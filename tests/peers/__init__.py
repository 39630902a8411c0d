"""What the acceptance tests set round the engine: its process, clients, servers and captures on a bed of namespaces."""
