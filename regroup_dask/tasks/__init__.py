"""What runs on the cluster; the only wing that imports distributed."""
