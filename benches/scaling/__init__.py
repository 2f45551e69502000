"""Many clients over several bus servers: measured, and computed."""
