"""Reports as one HTML file each: no script, no network, readable on a phone, light or dark.

| file | what it decides |
|---|---|
| numbers | how a number is said |
| charts | bars, ranges, points on one line |
| plot | lines over an axis: time, or intervals on a log axis |
| lanes | what served when, and what was decided |
| page | a page's frame, sections, tables |
| setup | what a run was made with: commit, machine, settings that are not the defaults |
| bins, series | what arms did over time, from a run's evidence |
| decisions | release events as rows |
| run_page, freshness_page, releases_page | a run under load; how often to synchronise; every decision |
| command | ``python -m local report`` |

All but setup and command are pure: data in, markup out.
"""
