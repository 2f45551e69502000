"""A checker with random faults that no committed message is lost."""
