"""What the collector shows to other programs."""
