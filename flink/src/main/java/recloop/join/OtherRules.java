package recloop.join;

/** A checkpoint was written under other join rules than those asked for now. */
public final class OtherRules extends RuntimeException {
    OtherRules(String had, String wanted) {
        super("the checkpoint was written with " + had + ", not with " + wanted
                + ": start with the old settings, or with --fresh from the beginning of the topics");
    }
}
