package recloop.join;

/** Kafka has aborted outputs that a complete checkpoint counts as written. */
public final class LostTransaction extends RuntimeException {
    LostTransaction(String transactionalId, Throwable reason) {
        super("Kafka aborted transaction " + transactionalId + " of a complete checkpoint (" + reason.getMessage()
                + "): its records are lost. Was the job away for longer than --transaction-timeout-ms, or does"
                + " another one run with the same --group? Start with --fresh: it says everything again");
    }
}
