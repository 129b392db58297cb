"""The hostile world: crafted files, a misbehaving Kaggle, kills, full disks, secrets and people's mistakes.

tests/bench/soak.py goes on for hours with the first three.

test_crafted_files      pickles and archives, the corpus, at the real command line
test_honest_files       what write_honest wrote with two versions of numpy, kept in honest/
test_fuzzing            mutations of both; tests/bench/fuzz.py goes on for hours
test_kaggle_misbehaves  the table;  kaggle_place runs a row
test_kills              kills at random moments, and what must not be there afterwards
test_disk_order         what is synced before it is renamed
test_mistakes           the table of mistakes, made by edits
test_surroundings       terminals, locales, folders, a GPU that fails;  test_full_disk
test_secrets            a Kaggle that quotes them; what others wrote and a terminal would obey
test_file_systems       data by links, file systems that refuse
test_load               a long ledger
"""
