"""Where filters' modules come from, who signed them, and what they ask for."""
