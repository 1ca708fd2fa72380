"""``make backfill-demo``: a view joins a running stack, with its whole past.

| file | what |
|---|---|
| command.py | the command line; reports |
| view.py | the view that joins |
| run.py | the stack, its load and the steps, timed |
| learn.py | what the view is worth: models with it, without it, and with what forward logging gave |
| verdict.py | figures, and what must hold of them |
"""
