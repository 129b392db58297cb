"""Files that survive a crash: manifests, atomic writes, archives, the pickle reader."""
