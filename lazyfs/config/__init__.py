"""Configuration: parameters from files, environment and options, and the typed settings."""
