"""The line packets leave by: binding a socket to it, finding it, proving that it was used."""
