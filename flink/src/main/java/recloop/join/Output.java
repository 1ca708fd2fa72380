package recloop.join;

import com.google.protobuf.ByteString;
import rec.events.v1.Events.TrainingSample;

/**
 * What a join says. Every record that goes in and is not used comes out as exactly one Rejected or is a repeat; every
 * impressed item comes out as exactly one row of a Sample or is counted in exactly one {@link Rejected#items}.
 */
public sealed interface Output {
    /** Rows of one request that are decided now; {@code joined_at} is left to the host. */
    record Sample(TrainingSample message, int rows, boolean positive) implements Output {}

    /**
     * One record that is not (wholly) used.
     *
     * @param requestId empty for malformed records
     * @param items how many impressed items this explains
     * @param itemIds n x uint64 LE: names them when they are not all of the impression
     * @param detail what is malformed, else empty
     */
    record Rejected(
            Reason reason,
            Source source,
            long offset,
            byte[] raw,
            String requestId,
            int items,
            ByteString itemIds,
            String detail)
            implements Output {}

    /** The barrier stands behind everything that it promised, on all inputs. */
    record BarrierPassed(String barrierId, long occurredUs) implements Output {}
}
