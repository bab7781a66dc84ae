"""The security audit: pure checks over rows, settings and who is connected; what it finds, why, and what to do."""
