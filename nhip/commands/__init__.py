"""The commands of ``nhip``, a file for each thing a person comes to do."""
