"""What a winner hands in: a zip from which a stranger makes the submitted CSV again.

lineage        the runs behind a CSV in the order of their training: teachers come before whom they taught
contents       all its files: the project's code, the runs, and what is written for this one
pages          its README and scripts, from templates/
environment    the exact versions of the packages
bundle         the zip: the same files, the same bytes
settings       (in the unpacked package) SETTINGS.json, the only place for paths
reproduction   (there, too) whether the very same came out
"""
