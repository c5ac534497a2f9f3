"""Pages drawn on the server: they work without JavaScript, without any other host, and on a phone."""
