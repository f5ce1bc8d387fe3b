"""Who rents machines, and how to reach them: one protocol, one file a provider."""
