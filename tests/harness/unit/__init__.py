"""What a unit does, on the model and on the native core."""
