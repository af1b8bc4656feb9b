"""What a filter may do."""
