"""``python -m local compare-samples``: all the ways to build samples on the same traffic, side by side.

command.py      the command line and the order of things
run.py          stack, load, barrier; what each scheme's processes said, cost and held   -> a folder
  workers.py      how a run talks to them
evaluate.py     the folder -> figures: oracle, truth, and what follows
  rows.py         samples as numpy columns, rows found by (request, item)
  truth.py        features as served at t2, cut out of the snapshots, and the oracle's labels
  leak.py         what differs from the truth, per column and kind
  speed.py        how leaking follows the speed of a feature
  sets.py         completeness; what two sets of samples do not say alike, with a code
  delay.py        from impression to visible sample
verdict.py      what the figures must show
page.py, page_text.py   the report as one self-contained HTML file, made as local.report makes pages
"""
