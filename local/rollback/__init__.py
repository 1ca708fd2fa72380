"""``make rollback-demo``: faults planted under load, found and mended by the loop itself.

| file | what |
|---|---|
| command.py | the command line; reports |
| run.py | the stack, its load and the steps: each fault at a known moment |
| plants.py | the faults: records, models and settings |
| bots.py | users who click everything, as a process |
| watch.py | what the loop says of itself while it runs, and what its logs say afterwards |
| verdict.py | figures, and what must hold of them |
"""
