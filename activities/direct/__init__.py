"""Direct mode: the rows of an attempt, sent one by one to the provider's ordinary endpoint."""
