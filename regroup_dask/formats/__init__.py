"""Reading and writing: the doors of the program; no science, no cluster."""
