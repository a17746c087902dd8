"""Binary formats of virtio-iommu: config space, requests, properties, fault reports."""
