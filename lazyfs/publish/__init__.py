"""Publishing: keys, chunking, catalogs, signing, upload targets."""
