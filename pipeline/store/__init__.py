"""Files that survive a crash, and files from outside.

atomic              a file or a folder is complete or absent; locks
manifest            sizes and hashes of what a stage wrote; the one reader of our JSON
archive, pickles    read zip, tar and pickle files from outside without running code
formats, links      names for unreadable formats; files reached through links
cifar, processed    the competition's files, and preprocess's checked arrays
runs, ensemble      what train writes, and the runs that predict averages
submissions         a CSV's origin and the probabilities behind it;  submission_format: what Kaggle takes
ledger              what was predicted, sent and scored
overview            what exists and what of it is stale
"""
