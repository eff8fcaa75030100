"""The servicers of session_svc and their conversions."""
