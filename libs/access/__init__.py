"""Authentication and authorization of callers, shared by every service and edge."""
