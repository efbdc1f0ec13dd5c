"""Read CernVM-FS repositories lazily: as a library, from the shell, or as a mount."""
