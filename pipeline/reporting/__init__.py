"""The report's parts.

material          what is known of a run: gathered from its folder, its CSV, and the ledger
training_figures  the paper's figures: rate, accuracy, loss
answer_figures    what the network gets wrong, and what it says of the hidden images
score_figures     local, predicted and scored accuracy over the submissions, and on the published line
theme             one look for all figures, on paper and in a dark room; SVG for the page, PNG beside it
tables            numbers as people read them
page              the page, from report.html.j2 and report.css
"""
