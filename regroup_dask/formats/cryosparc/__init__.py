"""CryoSPARC particle files (.cs in both encodings, .csg groups) and the outputs its next job reads."""
