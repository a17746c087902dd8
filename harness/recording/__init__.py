"""Record a virtual machine: its command line, its process, its unit, the plugin inside it."""
