package recloop.join;

/** One partition holds more events than allowed. Nothing is given up silently: the job fails. */
public final class StateFull extends RuntimeException {
    StateFull(int held, int allowed) {
        super("the join holds " + held + " events of one partition, allowed are " + allowed
                + ": raise --max-held-events (and the heap), or shorten the window");
    }
}
