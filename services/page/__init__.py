"""The loop live in a browser: what the services say of themselves, over time, and the switches of a load.

| file | what it decides |
|---|---|
| change | rates and quantiles between two readings of counters and histograms |
| sources | whether what a source said last may still be shown |
| figures | the lines and tables of the page, from what the sources said |
| history | how many points are kept, and of how many lines |
| neighbours | how a neighbour is called |
| looks, asks | one look at all sources: metrics over HTTP, statuses over gRPC |
| watch | when to look; who is told |
| visitors | who may ask what: names, origins, sizes |
| questions | a user's list and why, scenarios: what is asked of the loop for a visitor |
| web | routes and headers |
| static/ | the page itself: no build step, nothing from elsewhere |
"""
