"""The connection to Redis: one server, Sentinel or a cluster, behind one port."""
