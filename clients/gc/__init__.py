"""What batches leave behind, and the removal of what nobody needs any more."""
