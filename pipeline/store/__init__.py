"""Files that survive a crash, and files from outside.

atomic              a file or a folder is complete or absent; locks
manifest            sizes and hashes of what a stage wrote; the one reader of our JSON
archive, pickles    what comes from outside: zip and tar, and pickles that run no code
formats, links      what is not ours to read, named; files that are reached by links
cifar, processed    the competition's files, and the checked arrays that preprocess makes of them
runs, ensemble      what train writes, and the runs that predict averages
submissions         a CSV's origin and the predictions behind it;  submission_format: what Kaggle takes
ledger              what was predicted, sent and scored
overview            what exists and what of it is stale
"""
