"""What recall counts."""

from __future__ import annotations

from services.runtime.telemetry import counter, gauge, get_logger, histogram

log = get_logger("recall")

CANDIDATES = counter("recall_candidates", "Candidates answered, by source that proposed them", ["source"])
DEGRADED = counter("recall_degraded", "Answers by the source that they lacked and why", ["source", "reason"])
COLD_USERS = counter("recall_cold_users", "Requests of users without a vector")
SHORT = counter("recall_short_answers", "Answers with fewer candidates than asked for")
SECONDS = histogram("recall_source_seconds", "Time that a source took", ["source"])

CO_CLICK_LISTS = counter(
    "recall_co_click_lists", "Items whose neighbours were needed, by where from", ["outcome"]
)
BAD_MEMBERS = counter("recall_bad_members", "Members of Redis sets that are no item ids", ["set"])
REDIS_ERRORS = counter("recall_redis_errors", "Failed reads of Redis", ["source"])

CATALOGUE = gauge("recall_catalogue_items", "Items in the catalogue")
READ_ERRORS = counter("recall_read_errors", "Failed reads of Kafka", ["topic"])
DEAD_LETTERS = counter("recall_dead_letters", "Records that did not decode", ["topic"])

MALFORMED_RELEASES = counter("recall_malformed_releases", "Records of model-releases that do not decode")
VERDICTS = counter("recall_delta_verdicts", "Deltas read, by what the rules of the chain said", ["reason"])
DELTA_ROWS = counter("recall_delta_rows", "Rows of users and items changed by deltas")
RESYNCS = counter("recall_resyncs", "Repairs of the chain, by where from", ["source"])
BASES = counter("recall_bases", "Bases read from the model store, by outcome", ["outcome"])
SEQUENCE = gauge("recall_vector_sequence", "Sequence of the vectors served")
GENERATION = gauge("recall_vector_generation", "Generation of the vectors served")
CREATED = gauge("recall_vector_created_seconds", "Wall time at which the newest vectors were published")

SEARCHES = counter("recall_vector_searches", "Searches by vector, by what was looked through", ["through"])
CHECKS = counter("recall_list_checks", "Answers compared with one through everything")
CHECKS_BELOW = counter("recall_list_checks_below", "Compared answers below the promised recall")
RECALL = gauge("recall_list_recall", "Recall of the last compared answers, mean; 1 without lists")
LISTS = gauge("recall_lists", "Lists of the items; 0 = every search goes through everything")
PROBES = gauge("recall_list_probes", "Lists looked into by a search; 0 = through everything")
LISTINGS = counter("recall_listings", "Lists made or given up, by why", ["reason"])
