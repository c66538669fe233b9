"""What `fabric validate` finds beside the mistakes of the YAML itself."""
