"""What exists of a competition here, what of it is stale, and what comes next: read from the files, asking nobody.

    data       the download and the arrays
    runs       runs, also those under way
    csvs       CSVs, what was predicted for them and what they scored
    whole      all of it, the report and the ledger
    todo       the first thing that is missing or stale, in the order of the stages
    screen     the same for people

Nothing here changes a file, and damage is told, not raised.
"""
