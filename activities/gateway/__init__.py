"""The steps of the gateway's batches, and the files that they share with its door."""
