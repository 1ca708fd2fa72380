package recloop.join;

import java.util.List;

/** Bytes that are no event of their input: a dead letter. */
final class Malformed extends InvalidInput {
    /** How many impressed items the record stands for, as far as that can be told. */
    final int items;

    Malformed(String field, Object value, String allowed, int items) {
        super(List.of(violation(field, value, allowed)));
        this.items = items;
    }

    /** Says what is wrong with the data, not where the code stands: there may be many of them. */
    @Override
    public synchronized Throwable fillInStackTrace() {
        return this;
    }
}
