"""``make demo-days``: days of the simulated world, four ways to update a model, on the same users in one run.

| file | what |
|---|---|
| command.py | the command line; reports |
| plan.py | what the run is: days, rates, arms |
| run.py | the stack, its load and the turns of the days |
| turn.py | one turn: the day's full model, trained under load, and the arms that get it |
| evidence.py | what the run left, as columns |
| verdict.py | figures, and what must hold of them |
| newborn.py | how soon new items are shown to whom they suit |
"""
