"""Child processes of this machine: started, watched, stopped in order, never left behind."""
