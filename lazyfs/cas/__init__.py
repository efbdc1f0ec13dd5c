"""Content-addressed storage: digests, codecs, object stores and the local cache."""
