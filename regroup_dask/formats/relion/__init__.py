"""RELION: star files of particles, read in byte ranges and written back with their own text, and model.star."""
