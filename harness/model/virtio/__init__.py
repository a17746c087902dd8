"""The virtio-iommu unit: domains, mappings, requests, faults (virtio 1.4, 5.13)."""
