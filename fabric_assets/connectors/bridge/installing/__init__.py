"""The environments of the operators' connectors: locked, built, described, and found again by a load."""
