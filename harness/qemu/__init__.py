"""A stopped QEMU as real hardware: its qtest socket, PCI, virtio, and devices that do DMA."""
