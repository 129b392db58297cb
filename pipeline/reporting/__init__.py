"""What report draws.

figures  every figure, also those of `check --pictures`
page     what is known of a run, its tables, and the page made of it by report.html.j2 and report.css
"""
