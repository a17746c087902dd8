"""Make up what software could say to an IOMMU, from a seed."""
