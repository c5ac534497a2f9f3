"""Says when each link will be full, and how sure that is."""
