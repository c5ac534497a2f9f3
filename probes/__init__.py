"""What runs on a measuring host."""
