"""The readable model of an IOMMU: the authority every other target is compared with."""
