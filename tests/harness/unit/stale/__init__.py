"""What each invalidation is enough for: a study on the model, the native core and a real QEMU."""
