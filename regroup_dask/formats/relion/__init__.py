"""RELION: star files of particles, read in byte ranges and written with their own text, and model.star."""
