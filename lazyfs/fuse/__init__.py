"""The FUSE file system: operations, node table, life cycle of a mount, control socket."""
